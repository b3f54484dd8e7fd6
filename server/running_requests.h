// Requests that can be ended by their id, by somebody else than their client.
#ifndef CADRE_SERVER_RUNNING_REQUESTS_H_
#define CADRE_SERVER_RUNNING_REQUESTS_H_

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "server/token_stream.h"

namespace cadre {

// Any thread.
class RunningRequests : public std::enable_shared_from_this<RunningRequests> {
 public:
  // A request is known by its id as long as somebody holds what this returns. Ids need not be unique. Whose it
  // is Abort asks `stream`, which without a caller is nobody's where there are keys.
  std::shared_ptr<void> Add(const std::string& id, const std::shared_ptr<TokenStream>& stream);
  // TokenStream::Abort of all that are known by `id` and `caller`'s (TokenStream::caller), which may be none.
  void Abort(const std::string& id, const std::string& caller);
  size_t size() const;

 private:
  using Streams = std::multimap<std::string, std::weak_ptr<TokenStream>>;
  void Remove(Streams::iterator place);

  mutable std::mutex mutex_;
  Streams streams_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_RUNNING_REQUESTS_H_
