// Checkpoints that are wrong: each is refused with the file, the tensor and the reason, soon, and nothing stays behind.
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/model/weights.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/fake_device.h"
#include "tests/support/temp_dir.h"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

using nlohmann::json;
using std::filesystem::path;
using ::testing::HasSubstr;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
constexpr absl::StatusCode kUnimplemented = absl::StatusCode::kUnimplemented;
constexpr absl::StatusCode kNotFound = absl::StatusCode::kNotFound;
constexpr char kOneFile[] = "model.safetensors";
constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kShard1[] = "model-00001-of-00002.safetensors";
constexpr char kShard2[] = "model-00002-of-00002.safetensors";

absl::Status OpenStatus(const path& dir) {
  const absl::StatusOr<ModelConfig> config = LoadModelConfig(dir);
  return config.ok() ? Checkpoint::Open(dir, *config).status() : config.status();
}

void ExpectRefused(const path& dir, absl::StatusCode code, const std::string& message) {
  const Stopwatch stopwatch;
  const absl::Status status = OpenStatus(dir);
  EXPECT_LT(stopwatch.Seconds(), kRefusalSeconds);
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  EXPECT_LT(status.message().size(), 600u);
}

FileTensor& Find(std::vector<FileTensor>& tensors, const std::string& name) {
  for (FileTensor& tensor : tensors) {
    if (tensor.name == name) return tensor;
  }
  ADD_FAILURE() << name;
  return tensors.front();
}

void Erase(std::vector<FileTensor>& tensors, const std::string& name) {
  Find(tensors, name);
  std::erase_if(tensors, [&](const FileTensor& tensor) { return tensor.name == name; });
}

// ---- tensors that do not fit the config ----

struct TensorDamage {
  std::string name;
  CheckpointSpec spec;
  std::function<void(std::vector<FileTensor>&)> damage;
  absl::StatusCode code;
  std::string message;
};

constexpr char kUp3[] = "model.layers.1.mlp.experts.3.up_proj.weight";

std::vector<TensorDamage> TensorDamages() {
  const CheckpointSpec olmoe{.family = ModelFamily::kOlmoe};
  const CheckpointSpec qwen2{.family = ModelFamily::kQwen2Moe};
  const CheckpointSpec qwen3{.family = ModelFamily::kQwen3Moe};
  const CheckpointSpec mixtral{.family = ModelFamily::kMixtral};
  const CheckpointSpec fused{.family = ModelFamily::kQwen3Moe, .fused_experts = true};
  const CheckpointSpec tied{.tie_word_embeddings = true};
  CheckpointSpec more_experts = olmoe;
  more_experts.extra_config = {{"num_experts", 9}};
  CheckpointSpec fewer_experts = olmoe;
  fewer_experts.extra_config = {{"num_experts", 7}};
  CheckpointSpec more_layers = olmoe;
  more_layers.extra_config = {{"num_hidden_layers", 3}};
  CheckpointSpec fewer_layers = olmoe;
  fewer_layers.extra_config = {{"num_hidden_layers", 1}};
  CheckpointSpec untied = tied;
  untied.extra_config = {{"tie_word_embeddings", false}};
  CheckpointSpec wider_vocab = olmoe;
  wider_vocab.extra_config = {{"vocab_size", 65}};
  CheckpointSpec other_head = qwen3;
  other_head.extra_config = {{"head_dim", 16}};
  CheckpointSpec other_family = olmoe;
  other_family.extra_config = {{"model_type", "mixtral"}, {"num_local_experts", 8}};
  CheckpointSpec dense_layer = qwen2;
  dense_layer.extra_config = {{"mlp_only_layers", {0}}};
  CheckpointSpec fused_fewer = fused;
  fused_fewer.extra_config = {{"num_experts", 7}};

  const auto none = [](std::vector<FileTensor>&) {};
  const auto erase = [](const std::string& name) {
    return [name](std::vector<FileTensor>& tensors) { Erase(tensors, name); };
  };
  const auto retype = [](const std::string& name, const std::string& dtype, size_t bytes) {
    return [=](std::vector<FileTensor>& tensors) {
      FileTensor& tensor = Find(tensors, name);
      tensor.dtype = dtype;
      tensor.bytes.resize(tensor.bytes.size() / 4 * bytes);
    };
  };
  const auto reshape = [](const std::string& name, const std::vector<int64_t>& shape) {
    return [=](std::vector<FileTensor>& tensors) { Find(tensors, name).shape = shape; };
  };
  const auto rename = [](const std::string& name, const std::string& to) {
    return [=](std::vector<FileTensor>& tensors) { Find(tensors, name).name = to; };
  };
  const auto add = [](const std::string& name) {
    return [name](std::vector<FileTensor>& tensors) { tensors.push_back({name, "F32", {1}, "abcd"}); };
  };
  const std::string missing_up3 = absl::StrCat("model.safetensors: tensor \"", kUp3, "\" is missing");
  return {
      {"embedding missing", olmoe, erase("model.embed_tokens.weight"), kInvalid,
       "\"model.embed_tokens.weight\" is missing"},
      {"head missing", olmoe, erase("lm_head.weight"), kInvalid, "tensor \"lm_head.weight\" is missing"},
      {"final norm missing", olmoe, erase("model.norm.weight"), kInvalid, "\"model.norm.weight\" is missing"},
      {"router missing", olmoe, erase("model.layers.0.mlp.gate.weight"), kInvalid, "mlp.gate.weight\" is missing"},
      {"router missing", mixtral, erase("model.layers.0.block_sparse_moe.gate.weight"), kInvalid,
       "gate.weight\" is missing"},
      {"expert missing", olmoe, erase(kUp3), kInvalid, missing_up3},
      {"expert missing", mixtral, erase("model.layers.1.block_sparse_moe.experts.7.w2.weight"), kInvalid,
       "7.w2.weight\" is missing"},
      {"fused down missing", fused, erase("model.layers.0.mlp.experts.down_proj"), kInvalid,
       "experts.down_proj\" is missing"},
      {"fused up missing", fused, erase("model.layers.0.mlp.experts.gate_up_proj"), kInvalid,
       "experts.0.gate_proj.weight\" is missing"},
      {"q norm missing", qwen3, erase("model.layers.1.self_attn.q_norm.weight"), kInvalid,
       "q_norm.weight\" is missing"},
      {"bias missing", qwen2, erase("model.layers.1.self_attn.v_proj.bias"), kInvalid, "v_proj.bias\" is missing"},
      {"shared expert missing", qwen2, erase("model.layers.1.mlp.shared_expert.up_proj.weight"), kInvalid,
       "shared_expert.up_proj"},
      {"shared gate missing", qwen2, erase("model.layers.1.mlp.shared_expert_gate.weight"), kInvalid,
       "shared_expert_gate"},
      {"more experts asked for", more_experts, none, kInvalid, "has shape [8, 32], config.json asks for [9, 32]"},
      {"fewer experts asked for", fewer_experts, none, kInvalid, "has shape [8, 32], config.json asks for [7, 32]"},
      {"fewer fused experts", fused_fewer, reshape("model.layers.0.mlp.gate.weight", {8, 32}), kInvalid,
       "asks for [7, 32]"},
      {"more layers asked for", more_layers, none, kInvalid, "model.layers.2.input_layernorm.weight\" is missing"},
      {"fewer layers asked for", fewer_layers, none, kInvalid, "config.json has no place for it in a olmoe model"},
      {"head of an untied model", untied, none, kInvalid, "tensor \"lm_head.weight\" is missing"},
      {"wider vocabulary asked for", wider_vocab, none, kInvalid, "has shape [64, 32], config.json asks for [65, 32]"},
      {"other head width asked for", other_head, none, kInvalid, "has shape [32, 32], config.json asks for [64, 32]"},
      {"other family asked for", other_family, none, kInvalid, "is missing"},
      {"dense layer asked for", dense_layer, none, kInvalid, "model.layers.0.mlp.gate_proj.weight\" is missing"},
      {"transposed", olmoe, reshape(kUp3, {32, 16}), kInvalid, "has shape [32, 16], config.json asks for [16, 32]"},
      {"flattened", olmoe, reshape(kUp3, {512}), kInvalid, "has shape [512]"},
      {"one dimension more", olmoe, reshape(kUp3, {1, 16, 32}), kInvalid, "has shape [1, 16, 32]"},
      {"scalar norm", olmoe, reshape("model.norm.weight", {32, 1}), kInvalid,
       "has shape [32, 1], config.json asks for [32]"},
      {"fused transposed", fused, reshape("model.layers.0.mlp.experts.down_proj", {8, 16, 32}), kInvalid,
       "asks for [8, 32, 16]"},
      {"8-bit float", olmoe, retype(kUp3, "F8_E4M3", 1), kUnimplemented, "has dtype F8_E4M3, supported are F32"},
      {"8-bit integer", olmoe, retype(kUp3, "I8", 1), kUnimplemented, "has dtype I8"},
      {"32-bit integer", olmoe, retype(kUp3, "I32", 4), kUnimplemented, "has dtype I32"},
      {"64-bit integer", olmoe, retype("model.norm.weight", "I64", 8), kUnimplemented, "has dtype I64"},
      {"boolean", olmoe, retype("model.embed_tokens.weight", "BOOL", 1), kUnimplemented, "has dtype BOOL"},
      {"extra tensor", olmoe, add("model.layers.0.extra"), kInvalid,
       "tensor \"model.layers.0.extra\": config.json has no place"},
      {"extra expert", olmoe, add("model.layers.0.mlp.experts.8.up_proj.weight"), kInvalid, "has no place"},
      {"output bias", qwen2, add("model.layers.0.self_attn.o_proj.bias"), kInvalid,
       "o_proj.bias\": config.json has no place"},
      {"quantization scale", olmoe, add("model.layers.0.self_attn.q_proj.weight_scale"), kInvalid, "weight_scale"},
      {"name in capitals", olmoe, rename(kUp3, "MODEL.LAYERS.1"), kInvalid, missing_up3},
      {"name with a control character", olmoe, add("x\x01\n"), kInvalid, "tensor \"x\\x01\\n\""},
      {"both layouts at once", fused, add("model.layers.0.mlp.experts.0.up_proj.weight"), kInvalid, "has no place"},
      {"no tensors", olmoe, [](std::vector<FileTensor>& tensors) { tensors.clear(); }, kInvalid, "is missing"},
  };
}

TEST(CheckpointDamageTest, TensorsThatDoNotFitTheConfig) {
  for (const TensorDamage& damage : TensorDamages()) {
    SCOPED_TRACE(damage.name);
    const TempDir dir;
    std::vector<FileTensor> tensors = MakeTensors(damage.spec);
    damage.damage(tensors);
    WriteFile(dir.path() / "config.json", MakeConfigJson(damage.spec).dump());
    WriteTensors(dir.path(), tensors, 1);
    ExpectRefused(dir.path(), damage.code, damage.message);
  }
}

// ---- files ----

struct FileDamage {
  std::string name;
  std::function<void(const path&)> damage;
  absl::StatusCode code;
  std::string message;
};

void EditIndex(const path& dir, const std::function<void(json&)>& edit) {
  json index = json::parse(ReadFile(dir / kIndex));
  edit(index);
  WriteFile(dir / kIndex, index.dump());
}

FileDamage ShardName(const std::string& name, const std::string& shown) {
  const auto damage = [name](const path& dir) {
    EditIndex(dir, [&](json& index) { index["weight_map"]["lm_head.weight"] = name; });
  };
  return {"shard named " + shown, damage, kInvalid,
          absl::StrCat("tensor \"lm_head.weight\": ", shown, " is not the plain name")};
}

std::vector<FileDamage> ShardDamages() {
  const auto index_text = [](const std::string& text) {
    return [text](const path& dir) { WriteFile(dir / kIndex, text); };
  };
  const auto replace_shard = [](const std::function<void(const path&)>& make) {
    return [make](const path& dir) {
      std::filesystem::remove(dir / kShard2);
      make(dir / kShard2);
    };
  };
  const auto resize = [](int64_t change) {
    return [change](const path& dir) {
      const auto size = static_cast<int64_t>(std::filesystem::file_size(dir / kShard2));
      std::filesystem::resize_file(dir / kShard2, static_cast<uintmax_t>(change == 0 ? 0 : size + change));
    };
  };
  std::vector<FileDamage> damages = {
      {"shard missing", replace_shard([](const path&) {}), kNotFound, kShard2},
      {"shard is a folder", replace_shard([](const path& p) { std::filesystem::create_directory(p); }), kInvalid,
       "not a regular file"},
      {"shard is a FIFO", replace_shard([](const path& p) { ASSERT_EQ(mkfifo(p.c_str(), 0600), 0); }), kInvalid,
       "not a regular file"},
      {"shard is a device", replace_shard([](const path& p) { std::filesystem::create_symlink("/dev/zero", p); }),
       kInvalid, "not a regular file"},
      {"shard is a dangling link", replace_shard([](const path& p) { std::filesystem::create_symlink("nowhere", p); }),
       kNotFound, kShard2},
      {"shard is text",
       replace_shard([](const path& p) { WriteFile(p, "version https://git-lfs.github.com/spec/v1"); }), kInvalid,
       "header length is"},
      {"shard is empty", resize(0), kInvalid, "has 0 bytes, a safetensors file has at least 8"},
      {"shard short by one byte", resize(-1), kInvalid, "are not a range of the"},
      {"shard long by one byte", resize(1), kInvalid, "1 bytes after the last tensor belong to no tensor"},
      {"shards swapped",
       [](const path& dir) {
         std::filesystem::rename(dir / kShard1, dir / "x");
         std::filesystem::rename(dir / kShard2, dir / kShard1);
         std::filesystem::rename(dir / "x", dir / kShard2);
       },
       kInvalid, absl::StrCat(kIndex, " says that it is in")},
      {"tensor in two shards", [](const path& dir) { WriteFile(dir / kShard2, ReadFile(dir / kShard1)); }, kInvalid,
       absl::StrCat(kIndex, " says that it is in \"", kShard1, "\"")},
      {"tensor not in the index",
       [](const path& dir) { EditIndex(dir, [](json& index) { index["weight_map"].erase("lm_head.weight"); }); },
       kInvalid, absl::StrCat("tensor \"lm_head.weight\": is not in ", kIndex)},
      {"index names a tensor that is nowhere",
       [](const path& dir) { EditIndex(dir, [](json& index) { index["weight_map"]["ghost"] = kShard1; }); }, kInvalid,
       absl::StrCat("tensor \"ghost\" is not in \"", kShard1, "\"")},
      {"file is a number",
       [](const path& dir) { EditIndex(dir, [](json& index) { index["weight_map"]["ghost"] = 7; }); }, kInvalid,
       "tensor \"ghost\": its file must be a string"},
      {"too many shards",
       [](const path& dir) {
         EditIndex(dir, [](json& index) {
           for (int i = 0; i < 600; ++i) index["weight_map"][absl::StrCat(i)] = absl::StrCat(i, ".safetensors");
         });
       },
       kInvalid, "names 602 files, limit is 512"},
      {"index is empty", index_text(""), kInvalid, "invalid JSON"},
      {"index is a list", index_text("[]"), kInvalid, "weight_map must be an object"},
      {"index has no map", index_text("{}"), kInvalid, "weight_map must be an object"},
      {"map is a list", index_text(R"({"weight_map":[]})"), kInvalid, "weight_map must be an object"},
      {"map is empty", index_text(R"({"weight_map":{}})"), kInvalid, "weight_map must be an object that is not empty"},
      {"map says a name twice", index_text(R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})"), kInvalid,
       "duplicate key"},
      {"index nests deeply", index_text(std::string(100'000, '[')), kInvalid, kIndex},
      {"index is large", [](const path& dir) { std::filesystem::resize_file(dir / kIndex, uintmax_t{1} << 32); },
       kInvalid, "limit is 33554432"},
      {"index is a folder",
       [](const path& dir) {
         std::filesystem::remove(dir / kIndex);
         std::filesystem::create_directory(dir / kIndex);
       },
       kInvalid, "not a regular file"},
      {"index missing", [](const path& dir) { std::filesystem::remove(dir / kIndex); }, kNotFound,
       "has neither model.safetensors nor model.safetensors.index.json"},
  };
  for (const char* name : {"../../etc/passwd.safetensors", "/etc/passwd.safetensors", "sub/x.safetensors", "..", ".",
                           "x.bin", ".hidden.safetensors"}) {
    damages.push_back(ShardName(name, absl::StrCat("\"", name, "\"")));
  }
  damages.push_back(ShardName("", "\"\""));
  damages.push_back(ShardName(std::string("x\0.safetensors", 14), "\"x\\x00.safetensors\""));
  return damages;
}

TEST(CheckpointDamageTest, ShardsAndIndexesThatDoNotAgree) {
  for (const FileDamage& damage : ShardDamages()) {
    SCOPED_TRACE(damage.name);
    const TempDir dir;
    WriteCheckpoint(dir.path(), {.num_shards = 2});
    // lm_head.weight is the last of an even number of tensors or the first shard's, as the tests above assume.
    ASSERT_EQ(json::parse(ReadFile(dir.path() / kIndex))["weight_map"]["lm_head.weight"], kShard1);
    damage.damage(dir.path());
    ExpectRefused(dir.path(), damage.code, damage.message);
  }
}

TEST(CheckpointDamageTest, FolderWithoutModel) {
  const TempDir dir;
  ExpectRefused(dir.path(), kNotFound, "config.json");
  ExpectRefused(dir.path() / "none", kNotFound, "config.json");
}

TEST(CheckpointDamageTest, UnreadableFile) {
  if (geteuid() == 0) GTEST_SKIP() << "root reads every file";
  const TempDir dir;
  WriteCheckpoint(dir.path(), {});
  ASSERT_EQ(chmod((dir.path() / kOneFile).c_str(), 0), 0);
  ExpectRefused(dir.path(), absl::StatusCode::kPermissionDenied, kOneFile);
}

// A file cut at any byte of its header is refused by Open.
TEST(CheckpointDamageTest, CutShortAnywhereInTheHeader) {
  const TempDir dir;
  WriteCheckpoint(dir.path(), {.num_layers = 1, .num_experts = 2, .fused_experts = true});
  const std::string bytes = ReadFile(dir.path() / kOneFile);
  const ModelConfig config = *LoadModelConfig(dir.path());
  const size_t header_end = 8 + static_cast<size_t>(static_cast<unsigned char>(bytes[0])) +
                            256 * static_cast<size_t>(static_cast<unsigned char>(bytes[1]));
  ASSERT_LT(header_end, bytes.size());
  for (size_t size = header_end + 1; size-- > 0;) {
    std::filesystem::resize_file(dir.path() / kOneFile, size);
    EXPECT_EQ(Checkpoint::Open(dir.path(), config).status().code(), kInvalid) << size;
  }
}

// ---- while it is read ----

class CheckpointLoadTest : public testing::Test {
 protected:
  CheckpointLoadTest() {
    WriteCheckpoint(dir_.path(), {.num_shards = 2});
    checkpoint_ = *Checkpoint::Open(dir_.path(), *LoadModelConfig(dir_.path()));
  }

  void ExpectLoadFails(FakeDevice& device, absl::StatusCode code, const std::string& message) {
    const absl::Status status = checkpoint_->Load(device).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_EQ(device.allocated_bytes(), 0u);
  }

  const TempDir dir_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

TEST_F(CheckpointLoadTest, FileCutShortIsDataLoss) {
  std::filesystem::resize_file(dir_.path() / kShard2, std::filesystem::file_size(dir_.path() / kShard2) - 1);
  FakeDevice device;
  ExpectLoadFails(device, absl::StatusCode::kDataLoss, absl::StrCat(kShard2, ": ends at byte"));
  ExpectLoadFails(device, absl::StatusCode::kDataLoss, "(tensor \"model.");
}

TEST_F(CheckpointLoadTest, FileWrittenToIsDataLoss) {
  WriteFile(dir_.path() / kShard1, ReadFile(dir_.path() / kShard1));
  std::filesystem::last_write_time(dir_.path() / kShard1,
                                   std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  FakeDevice device;
  ExpectLoadFails(device, absl::StatusCode::kDataLoss, "changed after it was opened");
}

TEST_F(CheckpointLoadTest, FileReplacedMeanwhileIsReadAsItWas) {
  std::filesystem::remove(dir_.path() / kShard1);
  WriteFile(dir_.path() / kShard1, "rubbish");
  FakeDevice device;
  EXPECT_TRUE(checkpoint_->Load(device).ok());
}

TEST_F(CheckpointLoadTest, DeviceTooSmallIsResourceExhausted) {
  const int64_t needed = checkpoint_->summary().dense_bytes + checkpoint_->summary().expert_bytes;
  for (const int64_t missing : {needed, int64_t{1}}) {
    FakeDevice device(static_cast<size_t>(needed - missing));
    ExpectLoadFails(device, absl::StatusCode::kResourceExhausted, "available");
  }
  FakeDevice device(static_cast<size_t>(needed));
  EXPECT_TRUE(checkpoint_->Load(device).ok());
}

TEST_F(CheckpointLoadTest, DeviceErrorEndsTheLoad) {
  FakeDevice device;
  device.FailSynchronize(absl::InternalError("device fell off the bus"), 10);
  ExpectLoadFails(device, absl::StatusCode::kInternal, "device fell off the bus");
}

}  // namespace
}  // namespace cadre
