#include "server/tokenizer_stream.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/errors.h"
#include "server/grpc_status.h"
#include "server/request_limits.h"
#include "server/single_request_call.h"
#include "server/wire.h"
#include "smg/grpc/common/tokenizer.pb.h"

namespace cadre {
namespace {

constexpr char kPath[] = "/vllm.grpc.engine.VllmEngine/GetTokenizer";
constexpr size_t kPieceBytes = 64 << 10;

absl::Status TooManyCalls(const ModelHost& host) {
  return MakeError({.code = absl::StatusCode::kResourceExhausted,
                    .reason = reason::kTooManyTokenizerCalls,
                    .message = absl::StrCat("GetTokenizer: ", kMaxTokenizerCalls,
                                            " calls at a time are the limit, and as many are open"),
                    .metadata = {{"limit", absl::StrCat(kMaxTokenizerCalls)}},
                    .retry_delay = host.RetryDelay()});
}

class TokenizerStream final : public SingleRequestCall {
 public:
  TokenizerStream(const ServiceContext& services, grpc::CallbackServerContext* context,
                  std::shared_ptr<TokenizerShelf> shelf)
      : SingleRequestCall(services, context, kPath), shelf_(std::move(shelf)) {
    Read();
  }

  // Whoever has not said its request yet takes nobody's place.
  void OnRequest() override {
    ReleaseRequest();  // it says nothing
    place_.emplace(shelf_->places(), kMaxTokenizerCalls);
    const auto charge = ChargeReading(services(), /*message_bytes=*/0);
    if (!place_->is_taken()) {
      Finish(ToGrpcStatus(TooManyCalls(*services().host)));
    } else if (!charge.ok()) {
      Finish(ToGrpcStatus(charge.status()));
    } else if (!services().work_queue->Post([this] { Begin(); })) {
      Finish(ToGrpcStatus(WorkQueueFull(services())));
    }
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::CANCELLED);
    } else if (const absl::Status status = watch().Took(); !status.ok()) {
      Finish(ToGrpcStatus(status));
    } else {
      WriteNext();
    }
  }

 private:
  absl::Status Prepare() {
    CADRE_RETURN_IF_ERROR(CheckStillWanted());
    CADRE_ASSIGN_OR_RETURN(const std::shared_ptr<const ServedText> model, services().host->Text());
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
    watch().Begin(services().stream.slow_reader_timeout, ReadingWatch::WhenLate::kTellFirst);
    if (is_last) {
      StartWriteAndFinish(&message_, grpc::WriteOptions(), grpc::Status::OK);
    } else {
      StartWrite(&message_);
    }
  }

  const std::shared_ptr<TokenizerShelf> shelf_;
  std::optional<CallPlace> place_;
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

BytesReactor* NewTokenizerStream(const ServiceContext& services, grpc::CallbackServerContext* context,
                                 std::shared_ptr<TokenizerShelf> shelf) {
  return new TokenizerStream(services, context, std::move(shelf));
}

}  // namespace cadre
