// A limit on how many calls of a kind are open at a time.
#ifndef CADRE_SERVER_CALL_PLACE_H_
#define CADRE_SERVER_CALL_PLACE_H_

#include <atomic>
#include <memory>
#include <utility>

namespace cadre {

// How many are open. Shared by all of them.
struct CallPlaces {
  std::atomic<int> count{0};
};

// One of `limit` places, if there was one, until the end. Any thread.
class CallPlace {
 public:
  CallPlace(std::shared_ptr<CallPlaces> places, int limit)
      : places_(std::move(places)), is_taken_(places_->count.fetch_add(1) < limit) {}
  ~CallPlace() { places_->count.fetch_sub(1); }
  CallPlace(const CallPlace&) = delete;
  CallPlace& operator=(const CallPlace&) = delete;

  bool is_taken() const { return is_taken_; }

 private:
  const std::shared_ptr<CallPlaces> places_;
  const bool is_taken_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_CALL_PLACE_H_
