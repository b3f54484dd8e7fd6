#ifndef CADRE_ENGINE_STRUCTURED_CONSTRAINT_CACHE_H_
#define CADRE_ENGINE_STRUCTURED_CONSTRAINT_CACHE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/structured/constraint_compiler.h"

namespace cadre {

// The constraints of one model by their texts: each is compiled once, also when many ask for it at the same time, and
// kept while there is room. What is dropped here lives on in the sequences that use it. Errors are kept, too, so that a
// schema that is refused costs its compilation once. Any thread.
class ConstraintCache {
 public:
  enum class Kind { kJsonSchema, kRegex, kChoices };
  struct Limits {
    int64_t max_bytes = 256 << 20;  // of constraints, as they were when last counted, and texts
    size_t max_entries = 256;
  };
  struct Stats {
    int64_t num_compiled = 0;  // refused ones included
    int64_t num_hits = 0;
    int64_t num_entries = 0;
    int64_t num_bytes = 0;
  };
  using VocabularyMaker = std::function<absl::StatusOr<std::shared_ptr<const TokenVocabulary>>()>;

  // `make_vocabulary` is called once, by the first who asks for a constraint: it takes as long as the vocabulary is
  // large, and many servers never need it.
  explicit ConstraintCache(VocabularyMaker make_vocabulary) : ConstraintCache(std::move(make_vocabulary), Limits()) {}
  ConstraintCache(VocabularyMaker make_vocabulary, Limits limits);

  // `texts` are the choices, or the one schema or expression. Takes as long as compiling does (up to about a second),
  // and so belongs on no thread that others wait for. The errors of constraint_compiler.h and of the vocabulary.
  CompiledConstraint Get(Kind kind, const std::vector<std::string>& texts);

  // Keeps no more than this from now on, and never more than Limits::max_bytes.
  void SetMaxBytes(int64_t bytes);
  // Drops all that is compiled. What sequences use lives on in them.
  void Clear();

  Stats stats() const;

 private:
  struct Entry {
    std::string key;
    std::shared_future<CompiledConstraint> constraint;
    int64_t num_bytes = 0;
  };
  using EntryList = std::list<Entry>;

  CompiledConstraint Compile(Kind kind, const std::vector<std::string>& texts);
  absl::StatusOr<std::shared_ptr<const TokenVocabulary>> Vocabulary();
  // Counts again what the constraints take, and drops the least recently used until `limits` hold.
  void MakeRoom(const Limits& limits);

  const VocabularyMaker make_vocabulary_;
  const Limits limits_;
  std::once_flag vocabulary_once_;
  absl::StatusOr<std::shared_ptr<const TokenVocabulary>> vocabulary_;

  mutable std::mutex mutex_;
  int64_t max_bytes_ = limits_.max_bytes;
  EntryList entries_;  // most recently used first
  absl::flat_hash_map<std::string, EntryList::iterator> by_key_;
  Stats stats_;
};

}  // namespace cadre

#endif  // CADRE_ENGINE_STRUCTURED_CONSTRAINT_CACHE_H_
