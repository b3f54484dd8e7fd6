// The answer to VllmEngine's GetTokenizer.
#ifndef CADRE_SERVER_TOKENIZER_STREAM_H_
#define CADRE_SERVER_TOKENIZER_STREAM_H_

#include <memory>
#include <mutex>

#include "server/call_place.h"
#include "server/incoming_call.h"
#include "server/services.h"
#include "server/tokenizer_archive.h"

namespace cadre {

// One archive for all who take it at the same time, and none when nobody does. Any thread.
class TokenizerShelf {
 public:
  absl::StatusOr<std::shared_ptr<const TokenizerArchive>> Get(const std::filesystem::path& folder);
  // Of all who take it.
  const std::shared_ptr<CallPlaces>& places() const { return places_; }

 private:
  const std::shared_ptr<CallPlaces> places_ = std::make_shared<CallPlaces>();
  std::mutex mutex_;
  std::weak_ptr<const TokenizerArchive> archive_;
};

// Makes the archive on the work queue, and sends it in pieces of 64 KiB. RESOURCE_EXHAUSTED while kMaxTokenizerCalls
// others are open, and for a client that takes nothing for `services.stream.slow_reader_timeout`, which is cancelled
// when it takes nothing for as long again. Deletes itself when gRPC is done with it.
BytesReactor* NewTokenizerStream(const ServiceContext& services, grpc::CallbackServerContext* context,
                                 std::shared_ptr<TokenizerShelf> shelf);

}  // namespace cadre

#endif  // CADRE_SERVER_TOKENIZER_STREAM_H_
