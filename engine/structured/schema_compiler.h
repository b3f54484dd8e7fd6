#ifndef CADRE_ENGINE_STRUCTURED_SCHEMA_COMPILER_H_
#define CADRE_ENGINE_STRUCTURED_SCHEMA_COMPILER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/structured/grammar.h"
#include "engine/structured/json_rules.h"
#include "engine/structured/schema_budget.h"
#include "engine/structured/schema_keywords.h"
#include "engine/structured/schema_resolver.h"

namespace cadre {

// Turns a schema into a grammar: one rule for each subschema. Rules wait in a list for their content, so that neither
// nesting nor recursion in the schema becomes recursion here.
class SchemaCompiler {
 public:
  // `root` must outlive this object.
  explicit SchemaCompiler(const SchemaJson* root) : root_(*root), resolver_(root, &budget_), json_(&grammar_) {}

  // Once. The errors of CompileJsonSchema.
  absl::StatusOr<Grammar> Compile(const ByteSet& spelled);

 private:
  struct Member {
    std::string key;  // as written, with quotation marks
    int32_t rule;
    bool is_required;
  };
  // Members whose keys are not listed: those that match an expression, and the rest.
  struct OpenMembers {
    ByteDfa keys;
    int32_t value_rule;
  };
  // Which keys an object may have, as they are written.
  struct ObjectKeys {
    const ByteDfa* conforming = nullptr;  // to `propertyNames`; null: all
    std::vector<ByteDfa> matching;        // each of `patternProperties`
  };
  struct ObjectParts {
    std::vector<Member> members;
    std::vector<int32_t> open_rules;
    int32_t min_members = 0;
    int32_t max_members = 0;  // kNoLengthLimit: none
  };

  // The start of the rule for `schema`.
  absl::StatusOr<int32_t> RuleOf(const SchemaJson& schema, const std::string& path);

  // Charges the budget with what the automaton cost. ResourceExhausted when that is spent.
  absl::StatusOr<ByteDfa> Charge(absl::StatusOr<ByteDfa> dfa);

  // Each fills a rule that starts in `start`.
  absl::Status Fill(const PlacedSchema& schema, int32_t start);
  absl::Status FillAlternatives(const PlacedSchema& schema, const char* keyword, int32_t start);
  absl::Status FillValues(const PlacedSchema& schema, const std::vector<SchemaJson>& values, int32_t start);
  absl::Status FillType(const PlacedSchema& schema, const std::string& type, int32_t start);
  absl::Status FillNumber(const PlacedSchema& schema, bool is_integer, int32_t start);
  absl::Status FillString(const PlacedSchema& schema, int32_t start);
  absl::Status FillArray(const PlacedSchema& schema, int32_t start);
  absl::Status FillObject(const PlacedSchema& schema, int32_t start);

  // What `pattern` and `format` let stand between the quotation marks; nullopt when there is neither.
  absl::StatusOr<std::optional<ByteDfa>> PatternContent(const PlacedSchema& schema);
  // The same, of the lengths that conform.
  absl::StatusOr<std::optional<ByteDfa>> StringContent(const PlacedSchema& schema);
  void AddCountedCharacters(int32_t start, int32_t min, int32_t max);

  absl::StatusOr<ObjectParts> ReadObject(const PlacedSchema& schema);
  // The rules of members whose keys are not listed; names of listed ones are taken out of their keys.
  absl::StatusOr<std::vector<OpenMembers>> ReadOpenMembers(const PlacedSchema& schema, const ObjectKeys& keys,
                                                           const std::vector<std::string>& names);
  // Every key there can be, as it is written.
  absl::StatusOr<ByteDfa> AllKeys();
  absl::StatusOr<ByteDfa> KeysMatching(const PlacedSchema& schema, const std::string& pattern);
  absl::StatusOr<ObjectKeys> ReadKeys(const PlacedSchema& schema);
  // The keys that conform to `propertyNames`, kept for all that share it; null when all do.
  absl::StatusOr<const ByteDfa*> NamesOf(const PlacedSchema& schema);
  // The same for the schema of the names; nullopt when all conform.
  absl::StatusOr<std::optional<ByteDfa>> NamesThatConform(const PlacedSchema& names);
  // One of these texts. Charges the budget first.
  absl::StatusOr<ByteDfa> OneOf(const std::vector<std::string>& texts);
  // What the value of `name` must conform to: the property itself and every expression that the name matches.
  // `listed`: its entry in `properties`; null when it has none.
  absl::StatusOr<const SchemaJson*> PropertySchema(const PlacedSchema& schema, const ObjectKeys& keys,
                                                   const std::string& name, const SchemaJson* listed);
  void AddMembers(const ObjectParts& parts, int32_t start);

  const SchemaJson& root_;
  SchemaBudget budget_;
  SchemaResolver resolver_;
  GrammarBuilder grammar_;
  JsonRules json_;
  std::optional<ByteDfa> all_keys_;
  absl::flat_hash_map<const SchemaJson*, std::unique_ptr<const ByteDfa>> names_;  // by the schema of the names
  absl::flat_hash_map<const SchemaJson*, int32_t> rules_;
  struct Pending {
    PlacedSchema schema;
    int32_t start;
  };
  std::deque<Pending> pending_;
  absl::flat_hash_map<int32_t, std::string> paths_;  // by the start of the rule
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_SCHEMA_COMPILER_H_
