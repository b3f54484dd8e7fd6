#include "server/tokenizer_stream.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/grpc_status.h"
#include "server/unary_call.h"
#include "server/wire.h"
#include "smg/grpc/common/tokenizer.pb.h"

namespace cadre {
namespace {

constexpr size_t kPieceBytes = 64 << 10;

class TokenizerStream final : public grpc::ServerWriteReactor<grpc::ByteBuffer> {
 public:
  TokenizerStream(const ServiceContext& services, grpc::CallbackServerContext* context,
                  std::shared_ptr<TokenizerShelf> shelf)
      : services_(services), context_(*context), shelf_(std::move(shelf)) {
    const auto charge = ChargeReading(services, /*message_bytes=*/0);
    if (!charge.ok()) {
      Finish(ToGrpcStatus(charge.status()));
    } else if (!services.work_queue->Post([this] { Begin(); })) {
      Finish(ToGrpcStatus(MakeError({.code = absl::StatusCode::kResourceExhausted,
                                     .reason = reason::kQueueFull,
                                     .message = "too many texts wait to be tokenized",
                                     .retry_delay = services.host->RetryDelay()})));
    }
  }

  void OnWriteDone(bool ok) override {
    if (ok) {
      WriteNext();
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }
  void OnDone() override { delete this; }

 private:
  absl::Status Prepare() {
    CADRE_RETURN_IF_ERROR(CheckStillWanted(*services_.host, context_));
    CADRE_ASSIGN_OR_RETURN(const std::shared_ptr<const ServedText> model, services_.host->Text());
    CADRE_ASSIGN_OR_RETURN(archive_, shelf_->Get(model->card.folder));
    return absl::OkStatus();
  }

  void Begin() {
    if (const absl::Status status = Prepare(); !status.ok()) {
      Finish(ToGrpcStatus(status));
    } else {
      WriteNext();
    }
  }

  void WriteNext() {
    smg::grpc::common::GetTokenizerChunk chunk;
    chunk.set_data(archive_->zip.substr(sent_, kPieceBytes));
    sent_ += chunk.data().size();
    const bool is_last = sent_ == archive_->zip.size();
    if (is_last) chunk.set_sha256(archive_->sha256);
    message_ = SerializeMessage(chunk);
    if (is_last) {
      StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
    } else {
      StartWrite(&message_);
    }
  }

  const ServiceContext& services_;
  grpc::CallbackServerContext& context_;
  const std::shared_ptr<TokenizerShelf> shelf_;
  std::shared_ptr<const TokenizerArchive> archive_;
  size_t sent_ = 0;
  grpc::ByteBuffer message_;  // in flight
};

}  // namespace

absl::StatusOr<std::shared_ptr<const TokenizerArchive>> TokenizerShelf::Get(const std::filesystem::path& folder) {
  const std::lock_guard lock(mutex_);
  if (auto archive = archive_.lock()) return archive;
  CADRE_ASSIGN_OR_RETURN(TokenizerArchive made, MakeTokenizerArchive(folder));
  auto archive = std::make_shared<const TokenizerArchive>(std::move(made));
  archive_ = archive;
  return archive;
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* NewTokenizerStream(const ServiceContext& services,
                                                               grpc::CallbackServerContext* context,
                                                               std::shared_ptr<TokenizerShelf> shelf) {
  return new TokenizerStream(services, context, std::move(shelf));
}

}  // namespace cadre
