// Where the weights of experts come from when they are not in memory.
#ifndef CADRE_ENGINE_EXPERTS_EXPERT_SOURCE_H_
#define CADRE_ENGINE_EXPERTS_EXPERT_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "engine/experts/expert_id.h"

namespace cadre {

// Asked by a read before each piece of it. May wait, so that more urgent reads go first; an error ends the read.
using ReadPace = absl::FunctionRef<absl::Status()>;

class ExpertSource {
 public:
  // Of a piece, at most.
  static constexpr int64_t kPieceBytes = int64_t{1} << 20;

  virtual ~ExpertSource() = default;
  // Of every expert, as held in memory.
  virtual int64_t expert_bytes() const = 0;
  // Fills `to`, which has expert_bytes(). A read that failed may be tried again. Any thread; may take as long as the
  // disk and `pace` do.
  virtual absl::Status Read(ExpertId expert, std::span<std::byte> to, ReadPace pace) const = 0;
  // "expert 3 of layer 12", layers counted as in the checkpoint.
  virtual std::string Describe(ExpertId expert) const = 0;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_EXPERTS_EXPERT_SOURCE_H_
