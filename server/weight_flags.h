// The settings of how weights and the KV cache are held in memory.
#ifndef CADRE_SERVER_WEIGHT_FLAGS_H_
#define CADRE_SERVER_WEIGHT_FLAGS_H_

#include <CLI/CLI.hpp>
#include <optional>
#include <string>

#include "engine/model/weights.h"
#include "kernels/dtype.h"

namespace cadre {

struct WeightConfig {
  std::optional<DType> dtype;           // of the weights; absent: as stored
  std::optional<DType> kv_cache_dtype;  // absent: like weights that are not quantized
  std::optional<DType> quantized;       // absent: nothing is
  QuantizedParts quantized_parts = QuantizedParts::kExperts;
};

// As they are typed.
class WeightFlags {
 public:
  void AddTo(CLI::App& app);
  // What is wrong with them together; empty: nothing.
  std::string FindFault() const;
  WeightConfig Config() const;

 private:
  std::string dtype_ = "auto";
  std::string kv_cache_dtype_ = "auto";
  std::string quantize_ = "none";
  std::string quantize_parts_ = "experts";
};

}  // namespace cadre

#endif  // CADRE_SERVER_WEIGHT_FLAGS_H_
