#include "server/weight_flags.h"

namespace cadre {
namespace {

std::optional<DType> ToDType(const std::string& name) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kQ8, DType::kQ4}) {
    if (DTypeName(dtype) == name) return dtype;
  }
  return std::nullopt;
}

QuantizedParts ToParts(const std::string& name) {
  if (name == "all-alike") return QuantizedParts::kAllAlike;
  return name == "all" ? QuantizedParts::kAll : QuantizedParts::kExperts;
}

}  // namespace

void WeightFlags::AddTo(CLI::App& app) {
  app.add_option("--dtype", dtype_, "Type of the weights in memory; auto: as stored")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float16"}));
  app.add_option(
         "--quantize", quantize_,
         "Round weights to 8 or 4 bits while loading: about half or a quarter of the memory, and other answers; "
         "on the CPU")
      ->check(CLI::IsMember({"none", "int8", "int4"}));
  app.add_option("--quantize-parts", quantize_parts_,
                 "What is rounded: the routed experts, or all matrices but routers and the embedding; those that are "
                 "not experts' to 8 bits (all), or like experts, but for the head (all-alike)")
      ->check(CLI::IsMember({"experts", "all", "all-alike"}));
  app.add_option("--kv-cache-dtype", kv_cache_dtype_, "auto: the type of the weights that are not quantized")
      ->check(CLI::IsMember({"auto", "float32", "bfloat16", "float16"}));
}

std::string WeightFlags::FindFault() const {
  return quantize_ == "none" && quantize_parts_ != "experts" ? "--quantize-parts: needs --quantize" : "";
}

WeightConfig WeightFlags::Config() const {
  return {.dtype = ToDType(dtype_),
          .kv_cache_dtype = ToDType(kv_cache_dtype_),
          .quantized = ToDType(quantize_),
          .quantized_parts = ToParts(quantize_parts_)};
}

}  // namespace cadre
