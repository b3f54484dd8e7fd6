#include "server/tokenizer_stream.h"

#include <algorithm>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/call_alarm.h"
#include "server/errors.h"
#include "server/grpc_status.h"
#include "server/request_limits.h"
#include "server/unary_call.h"
#include "server/wire.h"
#include "smg/grpc/common/tokenizer.pb.h"

namespace cadre {
namespace {

constexpr size_t kPieceBytes = 64 << 10;

absl::Status TooManyCalls(const ModelHost& host) {
  return MakeError({.code = absl::StatusCode::kResourceExhausted,
                    .reason = reason::kTooManyTokenizerCalls,
                    .message = absl::StrCat("GetTokenizer: ", kMaxTokenizerCalls,
                                            " calls at a time are the limit, and as many are open"),
                    .metadata = {{"limit", absl::StrCat(kMaxTokenizerCalls)}},
                    .retry_delay = host.RetryDelay()});
}

absl::Status SlowReader(absl::Duration patience) {
  return MakeError(
      {.code = absl::StatusCode::kResourceExhausted,
       .reason = reason::kSlowReader,
       .message = absl::StrCat("the client reads too slowly: it took nothing for ", absl::FormatDuration(patience)),
       .metadata = {{"timeout", absl::FormatDuration(patience)}}});
}

// Looks once in a while whether the client takes what is sent. One that has taken nothing meanwhile is too slow; if it
// takes nothing until the next look either, its call is cancelled. Outlives the call where the alarm is just ringing.
class ReadingWatch : public std::enable_shared_from_this<ReadingWatch> {
 public:
  ReadingWatch(grpc::CallbackServerContext* context, absl::Duration patience)
      : patience_(patience), context_(context) {}

  void Begin() {
    const std::lock_guard lock(mutex_);
    Arm();
  }
  // The client took a piece. False: it did so too late.
  bool Took() {
    const std::lock_guard lock(mutex_);
    ++num_taken_;
    return !is_too_slow_;
  }
  // The call is about to go.
  void End() {
    const std::lock_guard lock(mutex_);
    context_ = nullptr;
    alarm_.Cancel();
  }
  absl::Duration patience() const { return patience_; }

 private:
  // These run under mutex_.
  void Arm() {
    alarm_.Set(patience_, [self = shared_from_this()] {
      const std::lock_guard lock(self->mutex_);
      self->Look();
    });
  }
  void Look() {
    if (context_ == nullptr) return;
    if (is_too_slow_) return context_->TryCancel();
    is_too_slow_ = num_taken_ == num_seen_;
    num_seen_ = num_taken_;
    Arm();
  }

  const absl::Duration patience_;
  std::mutex mutex_;
  grpc::CallbackServerContext* context_;  // null once the call is gone
  CallAlarm alarm_;
  size_t num_taken_ = 0;  // pieces
  size_t num_seen_ = 0;   // the same, at the last look
  bool is_too_slow_ = false;
};

class TokenizerStream final : public BytesReactor {
 public:
  TokenizerStream(const ServiceContext& services, grpc::CallbackServerContext* context,
                  std::shared_ptr<TokenizerShelf> shelf)
      : services_(services),
        context_(*context),
        shelf_(std::move(shelf)),
        watch_(std::make_shared<ReadingWatch>(context, services.stream.slow_reader_timeout)) {
    StartRead(&request_);
  }

  // Whoever has not said its request yet takes nobody's place.
  void OnReadDone(bool ok) override {
    if (!ok) return Finish(grpc::Status::CANCELLED);
    place_.emplace(shelf_->places(), kMaxTokenizerCalls);
    const auto charge = ChargeReading(services_, /*message_bytes=*/0);
    if (!place_->is_taken()) {
      Finish(ToGrpcStatus(TooManyCalls(*services_.host)));
    } else if (!charge.ok()) {
      Finish(ToGrpcStatus(charge.status()));
    } else if (!services_.work_queue->Post([this] { Begin(); })) {
      Finish(ToGrpcStatus(MakeError({.code = absl::StatusCode::kResourceExhausted,
                                     .reason = reason::kQueueFull,
                                     .message = "too many texts wait to be tokenized",
                                     .retry_delay = services_.host->RetryDelay()})));
    }
  }

  void OnWriteDone(bool ok) override {
    if (!ok) {
      Finish(grpc::Status::CANCELLED);
    } else if (!watch_->Took()) {
      Finish(ToGrpcStatus(SlowReader(watch_->patience())));
    } else {
      WriteNext();
    }
  }
  void OnDone() override {
    watch_->End();
    delete this;
  }

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
      watch_->Begin();
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
  std::optional<CallPlace> place_;
  const std::shared_ptr<ReadingWatch> watch_;
  std::shared_ptr<const TokenizerArchive> archive_;
  size_t sent_ = 0;
  grpc::ByteBuffer request_;  // says nothing
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
