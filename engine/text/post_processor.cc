#include "engine/text/post_processor.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/base/strings.h"
#include "engine/text/bpe_model.h"
#include "engine/text/json_fields.h"

namespace cadre {
namespace {

// The most special tokens one template may add to a text.
constexpr std::size_t kMaxTemplateTokens = 1024;

// The ids of the special token `name` in the template's own table.
absl::StatusOr<std::vector<std::int32_t>> SpecialIds(const JsonFields& table, const std::string& name) {
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* json, table.Require(name));
  CADRE_ASSIGN_OR_RETURN(const JsonFields token, JsonFields::Open(*json, absl::StrCat(table.where(), " entry")));
  CADRE_RETURN_IF_ERROR(token.RefuseOthers({"id", "ids", "tokens"}));
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* ids, token.Require("ids"));
  if (!ids->is_array()) return token.Invalid(absl::StrCat("\"ids\" is ", ids->type_name(), ", not an array"));
  if (ids->size() > kMaxTemplateTokens) {
    return token.Invalid(absl::StrCat("\"ids\" has ", ids->size(), " entries, limit is ", kMaxTemplateTokens));
  }
  std::vector<std::int32_t> result;
  for (const nlohmann::json& id : *ids) {
    if (!id.is_number_unsigned() || id.get<std::uint64_t>() >= static_cast<std::uint64_t>(kMaxTokenIds)) {
      return token.Invalid(absl::StrCat("an id is not a whole number below ", kMaxTokenIds));
    }
    result.push_back(id.get<std::int32_t>());
  }
  return result;
}

// True for the text itself ({"Sequence": {"id": "A"}}), else false and the name of a special token.
absl::StatusOr<std::pair<bool, std::string>> ParsePiece(const nlohmann::json& json, const std::string& where) {
  CADRE_ASSIGN_OR_RETURN(const JsonFields piece, JsonFields::Open(json, where));
  CADRE_RETURN_IF_ERROR(piece.RefuseOthers({"Sequence", "SpecialToken"}));
  const bool is_text = piece.Find("Sequence") != nullptr;
  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* json_body, piece.Require(is_text ? "Sequence" : "SpecialToken"));
  CADRE_ASSIGN_OR_RETURN(const JsonFields body, JsonFields::Open(*json_body, where));
  CADRE_RETURN_IF_ERROR(body.RefuseOthers({"id", "type_id"}));
  CADRE_ASSIGN_OR_RETURN(const std::string_view id, body.String("id"));
  if (is_text && id != "A") return piece.Unsupported("a template for one text that uses a second one");
  return std::make_pair(is_text, std::string(id));
}

}  // namespace

absl::StatusOr<PostProcessor> PostProcessor::Parse(const nlohmann::json& json, std::string where) {
  PostProcessor processor;
  if (!json.is_null()) CADRE_RETURN_IF_ERROR(processor.Add(json, std::move(where)));
  return processor;
}

PostProcessor PostProcessor::Surround(std::vector<std::int32_t> prefix, std::vector<std::int32_t> suffix) {
  PostProcessor processor;
  processor.template_ = {{false, std::move(prefix)}, {true, {}}, {false, std::move(suffix)}};
  return processor;
}

absl::Status PostProcessor::Add(const nlohmann::json& json, std::string where) {
  CADRE_ASSIGN_OR_RETURN(const JsonFields fields, JsonFields::Open(json, std::move(where)));
  CADRE_ASSIGN_OR_RETURN(const std::string_view type, fields.String("type"));
  if (type == "Sequence") {
    CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "processors"}));
    return ForEachComponent(fields, "processors", [this](const nlohmann::json& component, std::string place) {
      return Add(component, std::move(place));
    });
  }
  if (type == "ByteLevel") {
    return fields.RefuseOthers({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  }
  if (type != "TemplateProcessing") {
    return fields.Unsupported(absl::StrCat("post-processor type ", Quoted(type), " is not supported"));
  }
  CADRE_RETURN_IF_ERROR(fields.RefuseOthers({"type", "single", "pair", "special_tokens"}));
  // The reference hands the parts of the first template to the second one as if they were several texts.
  if (has_template()) return fields.Unsupported("a second TemplateProcessing");

  CADRE_ASSIGN_OR_RETURN(const nlohmann::json* table_json, fields.Require("special_tokens"));
  CADRE_ASSIGN_OR_RETURN(const JsonFields table,
                         JsonFields::Open(*table_json, absl::StrCat(fields.where(), ".special_tokens")));
  std::vector<Piece> pieces;
  std::size_t num_special = 0;
  CADRE_RETURN_IF_ERROR(ForEachComponent(
      fields, "single", [&](const nlohmann::json& component, const std::string& place) -> absl::Status {
        CADRE_ASSIGN_OR_RETURN(const auto parsed, ParsePiece(component, place));
        Piece piece{parsed.first, {}};
        if (!piece.is_text) {
          CADRE_ASSIGN_OR_RETURN(piece.special_ids, SpecialIds(table, parsed.second));
        }
        num_special += piece.special_ids.size();
        pieces.push_back(std::move(piece));
        if (pieces.size() <= kMaxTemplateTokens && num_special <= kMaxTemplateTokens) return absl::OkStatus();
        return fields.Invalid(absl::StrCat("a template of more than ", kMaxTemplateTokens, " pieces or tokens"));
      }));
  // With several, the length of the output would be a multiple of that of the text.
  int num_texts = 0;
  for (const Piece& piece : pieces) num_texts += piece.is_text ? 1 : 0;
  if (num_texts != 1) return fields.Unsupported(absl::StrCat("a template that has the text ", num_texts, " times"));
  template_ = std::move(pieces);
  return absl::OkStatus();
}

std::vector<std::int32_t> PostProcessor::Apply(std::vector<std::int32_t> ids, bool add_special_tokens) const {
  if (!has_template() || !add_special_tokens) return ids;
  std::vector<std::int32_t> result;
  for (const Piece& piece : template_) {
    const std::vector<std::int32_t>& part = piece.is_text ? ids : piece.special_ids;
    result.insert(result.end(), part.begin(), part.end());
  }
  return result;
}

std::vector<std::int32_t> PostProcessor::ApplyOnce(std::vector<std::int32_t> ids, bool add_special_tokens) const {
  std::vector<std::int32_t> prefix;
  for (const Piece& piece : template_) {
    if (piece.is_text) break;
    prefix.insert(prefix.end(), piece.special_ids.begin(), piece.special_ids.end());
  }
  const bool is_there = ids.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
  if (add_special_tokens && is_there) ids.erase(ids.begin(), ids.begin() + std::ssize(prefix));
  return Apply(std::move(ids), add_special_tokens);
}

}  // namespace cadre
