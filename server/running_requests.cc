#include "server/running_requests.h"

namespace cadre {

std::shared_ptr<void> RunningRequests::Add(const std::string& id, const std::shared_ptr<TokenStream>& stream) {
  const std::lock_guard lock(mutex_);
  const auto place = streams_.emplace(id, stream);
  return {nullptr, [self = shared_from_this(), place](void*) { self->Remove(place); }};
}

void RunningRequests::Abort(const std::string& id, const std::string& caller) {
  std::vector<std::shared_ptr<TokenStream>> found;
  {
    const std::lock_guard lock(mutex_);
    const auto [begin, end] = streams_.equal_range(id);
    for (auto it = begin; it != end; ++it) {
      auto stream = it->second.lock();
      if (stream != nullptr && stream->caller() == caller) found.push_back(std::move(stream));
    }
  }
  // The end of a call may ask for the lock.
  for (const auto& stream : found) stream->Abort();
}

size_t RunningRequests::size() const {
  const std::lock_guard lock(mutex_);
  return streams_.size();
}

void RunningRequests::Remove(Streams::iterator place) {
  const std::lock_guard lock(mutex_);
  streams_.erase(place);
}

}  // namespace cadre
