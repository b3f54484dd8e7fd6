#include "engine/text/tokenizer_loader.h"

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/json_fields.h"

namespace cadre {
namespace {

constexpr std::string_view kTokenizerFile = "tokenizer.json";
constexpr std::string_view kConfigFile = "tokenizer_config.json";
constexpr std::int64_t kMaxFileBytes = 256 << 20;

// The component `name` of the file, JSON null when it is absent.
const nlohmann::json& Component(const JsonFields& file, std::string_view name) {
  static const nlohmann::json* const kNull = new nlohmann::json();
  const nlohmann::json* component = file.Find(name);
  return component == nullptr ? *kNull : *component;
}

std::string PlaceOf(std::string_view component) { return absl::StrCat("tokenizer.json: ", ToAbsl(component)); }

absl::StatusOr<TokenizerParts> ParseParts(const JsonFields& file) {
  CADRE_RETURN_IF_ERROR(file.RefuseOthers({"version", "truncation", "padding", "added_tokens", "normalizer",
                                           "pre_tokenizer", "post_processor", "decoder", "model"}));
  CADRE_ASSIGN_OR_RETURN(const std::optional<std::string_view> version, file.OptionalString("version"));
  if (version.has_value() && *version != "1.0") {
    return file.Unsupported(absl::StrCat("version ", Quoted(*version), " is not supported (1.0 is)"));
  }

  CADRE_ASSIGN_OR_RETURN(Normalizer normalizer,
                         Normalizer::Parse(Component(file, "normalizer"), PlaceOf("normalizer")));
  CADRE_ASSIGN_OR_RETURN(PreTokenizer pre_tokenizer,
                         PreTokenizer::Parse(Component(file, "pre_tokenizer"), PlaceOf("pre_tokenizer")));
  CADRE_ASSIGN_OR_RETURN(PostProcessor post_processor,
                         PostProcessor::Parse(Component(file, "post_processor"), PlaceOf("post_processor")));
  CADRE_ASSIGN_OR_RETURN(Decoder decoder, Decoder::Parse(Component(file, "decoder"), PlaceOf("decoder")));
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* model_json, file.Require("model"));
  CADRE_ASSIGN_OR_RETURN(BpeModel model, BpeModel::Parse(*model_json, PlaceOf("model")));
  CADRE_ASSIGN_OR_RETURN(AddedTokens added_tokens,
                         AddedTokens::Parse(file.Find("added_tokens"), model, normalizer, PlaceOf("added_tokens")));
  return TokenizerParts{std::move(normalizer),   std::move(pre_tokenizer),  std::move(model),
                        std::move(added_tokens), std::move(post_processor), std::move(decoder)};
}

// The id of the token that the member `name` of tokenizer_config.json spells, as a string or as an object with the
// content.
absl::StatusOr<std::vector<std::int32_t>> ConfiguredToken(const JsonFields& config, std::string_view name,
                                                          const TokenizerParts& parts) {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* member, config.Require(name));
  std::string_view content;
  if (member->is_string()) {
    content = member->get_ref<const std::string&>();
  } else {
    CADRE_ASSIGN_OR_RETURN(const JsonFields token,
                           JsonFields::Open(*member, absl::StrCat(config.where(), ".", ToAbsl(name))));
    CADRE_ASSIGN_OR_RETURN(content, token.String("content"));
  }
  const std::optional<std::int32_t> added_id = parts.added_tokens.TokenToId(content);
  const std::optional<std::int32_t> id = added_id.has_value() ? added_id : parts.model.TokenToId(content);
  if (!id.has_value()) return config.Invalid(absl::StrCat(ToAbsl(name), " is not a token of tokenizer.json"));
  return std::vector<std::int32_t>{*id};
}

absl::Status ApplyConfig(const JsonFields& config, TokenizerParts* parts) {
  if (parts->post_processor.has_template()) return absl::OkStatus();
  if (config.Find("add_bos_token") == nullptr && config.Find("add_eos_token") == nullptr) return absl::OkStatus();
  CADRE_ASSIGN_OR_RETURN(const std::optional<std::string_view> tokenizer_class,
                         config.OptionalString("tokenizer_class"));
  if (tokenizer_class != "LlamaTokenizer" && tokenizer_class != "LlamaTokenizerFast") return absl::OkStatus();

  CADRE_ASSIGN_OR_RETURN(const bool add_bos, config.BoolOr("add_bos_token", true));
  CADRE_ASSIGN_OR_RETURN(const bool add_eos, config.BoolOr("add_eos_token", false));
  std::vector<std::int32_t> prefix;
  std::vector<std::int32_t> suffix;
  if (add_bos) {
    CADRE_ASSIGN_OR_RETURN(prefix, ConfiguredToken(config, "bos_token", *parts));
  }
  if (add_eos) {
    CADRE_ASSIGN_OR_RETURN(suffix, ConfiguredToken(config, "eos_token", *parts));
  }
  parts->post_processor = PostProcessor::Surround(std::move(prefix), std::move(suffix));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TokenizerFiles> ReadTokenizerFiles(const std::filesystem::path& model_dir) {
  TokenizerFiles files;
  CADRE_ASSIGN_OR_RETURN(files.tokenizer_json, ReadFileToString(model_dir / kTokenizerFile, kMaxFileBytes));
  absl::StatusOr<std::string> config = ReadFileToString(model_dir / kConfigFile, kMaxFileBytes);
  if (!config.ok() && !absl::IsNotFound(config.status())) return config.status();
  if (config.ok()) files.tokenizer_config_json = *std::move(config);
  return files;
}

absl::StatusOr<TokenizerParts> ParseTokenizerFiles(std::string_view tokenizer_json,
                                                   std::string_view tokenizer_config_json) {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json document, ParseJson(tokenizer_json, kTokenizerFile));
  CADRE_ASSIGN_OR_RETURN(const JsonFields file, JsonFields::Open(document, std::string(kTokenizerFile)));
  CADRE_ASSIGN_OR_RETURN(TokenizerParts parts, ParseParts(file));
  if (!tokenizer_config_json.empty()) {
    CADRE_ASSIGN_OR_RETURN(const nlohmann::json config_document, ParseJson(tokenizer_config_json, kConfigFile));
    CADRE_ASSIGN_OR_RETURN(const JsonFields config, JsonFields::Open(config_document, std::string(kConfigFile)));
    CADRE_RETURN_IF_ERROR(ApplyConfig(config, &parts));
  }
  return parts;
}

}  // namespace cadre
