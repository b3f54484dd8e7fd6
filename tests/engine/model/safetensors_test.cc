#include "engine/model/safetensors.h"

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/temp_dir.h"
#include "tests/support/time_limit.h"

namespace cadre {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;

using Tensors = absl::StatusOr<std::vector<TensorInfo>>;

Tensors Parse(std::string_view json, int64_t data_bytes) {
  return ParseSafetensorsHeader(json, /*data_offset=*/1000, data_bytes, "f.safetensors");
}

Tensors ReadBytes(const TempDir& dir, std::string_view bytes) {
  WriteFile(dir.path() / "f.safetensors", bytes);
  const absl::StatusOr<InputFile> file = InputFile::Open(dir.path() / "f.safetensors");
  return file.ok() ? ReadSafetensorsHeader(*file) : Tensors(file.status());
}

std::string Entry(std::string_view dtype, std::string_view shape, int64_t begin, int64_t end) {
  return absl::StrCat(R"({"dtype":")", std::string(dtype), R"(","shape":)", std::string(shape), R"(,"data_offsets":[)",
                      begin, ",", end, "]}");
}

// What ParseSafetensorsHeader promises about any header that it accepts.
void ExpectSound(const std::vector<TensorInfo>& tensors, int64_t data_offset, int64_t data_bytes) {
  int64_t expected = data_offset;
  for (const TensorInfo& tensor : tensors) {
    EXPECT_EQ(tensor.offset_bytes, expected);
    expected += tensor.size_bytes;
    EXPECT_FALSE(tensor.name.empty());
    if (!tensor.dtype.has_value()) continue;
    int64_t bytes = static_cast<int64_t>(DTypeBytes(*tensor.dtype));
    for (const int64_t dim : tensor.shape) bytes *= dim;
    EXPECT_EQ(bytes, tensor.size_bytes);
  }
  EXPECT_EQ(expected, data_offset + data_bytes);
}

TEST(SafetensorsTest, ReadsTensorsInTheOrderOfTheirData) {
  const std::string json =
      absl::StrCat(R"({"a":)", Entry("F32", "[2,3]", 4, 28), R"(,"__metadata__":{"format":"pt"},"b":)",
                   Entry("BF16", "[2]", 0, 4), R"(,"c":)", Entry("F8_E4M3", "[]", 28, 29), "}   ");
  const Tensors tensors = Parse(json, 29);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ASSERT_EQ(tensors->size(), 3u);
  EXPECT_EQ((*tensors)[0].name, "b");
  EXPECT_EQ((*tensors)[0].dtype, DType::kBF16);
  EXPECT_EQ((*tensors)[0].offset_bytes, 1000);
  EXPECT_EQ((*tensors)[1].name, "a");
  EXPECT_THAT((*tensors)[1].shape, ElementsAre(2, 3));
  EXPECT_EQ((*tensors)[1].offset_bytes, 1004);
  EXPECT_EQ((*tensors)[1].size_bytes, 24);
  EXPECT_EQ((*tensors)[2].name, "c");
  EXPECT_EQ((*tensors)[2].dtype_name, "F8_E4M3");
  EXPECT_FALSE((*tensors)[2].dtype.has_value());
  EXPECT_THAT((*tensors)[2].shape, IsEmpty());
}

TEST(SafetensorsTest, KnowsTheSizeOfEveryType) {
  for (const auto& [dtype, bytes] : std::vector<std::pair<std::string, int64_t>>{{"BOOL", 1},
                                                                                 {"U8", 1},
                                                                                 {"I8", 1},
                                                                                 {"F8_E4M3", 1},
                                                                                 {"F8_E5M2", 1},
                                                                                 {"I16", 2},
                                                                                 {"U16", 2},
                                                                                 {"F16", 2},
                                                                                 {"BF16", 2},
                                                                                 {"I32", 4},
                                                                                 {"U32", 4},
                                                                                 {"F32", 4},
                                                                                 {"F64", 8},
                                                                                 {"I64", 8},
                                                                                 {"U64", 8}}) {
    const std::string json = absl::StrCat(R"({"x":)", Entry(dtype, "[3,5]", 0, 15 * bytes), "}");
    EXPECT_TRUE(Parse(json, 15 * bytes).ok()) << dtype;
    EXPECT_EQ(Parse(json, 15 * bytes + 1).status().code(), kInvalid) << dtype;
  }
}

TEST(SafetensorsTest, AcceptsEmptyTensorsAndEmptyFiles) {
  EXPECT_TRUE(Parse("{}", 0).ok());
  const std::string json = absl::StrCat(R"({"a":)", Entry("F32", "[1]", 0, 4), R"(,"b":)", Entry("F32", "[0,7]", 0, 0),
                                        R"(,"c":)", Entry("F32", "[0]", 4, 4), "}");
  const Tensors tensors = Parse(json, 4);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  ExpectSound(*tensors, 1000, 4);
}

struct BadHeader {
  std::string json;
  int64_t data_bytes;
  std::string message;
};

std::string One(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return R"({"x":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}

std::string Two(int64_t begin1, int64_t end1, int64_t begin2, int64_t end2) {
  return absl::StrCat(R"({"x":)", Entry("U8", absl::StrCat("[", end1 - begin1, "]"), begin1, end1), R"(,"y":)",
                      Entry("U8", absl::StrCat("[", end2 - begin2, "]"), begin2, end2), "}");
}

TEST(SafetensorsErrorsTest, NameTheTensorAndTheReason) {
  const std::string deep = std::string(100'000, '[');
  const std::vector<BadHeader> cases = {
      {"", 0, "does not start with '{'"},
      {" {}", 0, "does not start with '{'"},
      {"\xEF\xBB\xBF{}", 0, "does not start with '{'"},
      {"[]", 0, "does not start with '{'"},
      {"null", 0, "does not start with '{'"},
      {"{", 0, "invalid JSON at header byte"},
      {"{}x", 0, "invalid JSON at header byte 3"},
      {"{} {}", 0, "invalid JSON"},
      {std::string("{}\0", 3), 0, "invalid JSON"},
      {"{\"x\":}", 0, "invalid JSON"},
      {"{\"\xFF\":1}", 0, "invalid JSON"},
      {"{\"x\":1}", 0, "tensor \"x\": the number 1 stands where none belongs"},
      {"{\"x\":null}", 0, "tensor \"x\": null is not allowed"},
      {"{\"x\":true}", 0, "true and false are not allowed"},
      {"{\"x\":[]}", 0, "tensor \"x\": an array stands where none belongs"},
      {"{\"x\":\"y\"}", 0, "the string \"y\" stands where none belongs"},
      {"{\"x\":" + deep, 0, "an array stands where none belongs"},
      {"{\"x\":{\"shape\":" + deep, 0, "an array stands where none belongs"},
      {"{\"\":{}}", 0, "a tensor has no name"},
      {"{\"" + std::string(1000, 'n') + "\":{}}", 0, "its name has 1000 bytes, limit is 512"},
      {"{\"x\":{}}", 0, "tensor \"x\": dtype is missing"},
      {R"({"x":{"dtype":"F32"}})", 0, "shape is missing"},
      {R"({"x":{"dtype":"F32","shape":[]}})", 0, "data_offsets is missing"},
      {R"({"x":{"dtype":"F32","dtype":"F32"}})", 0, "dtype is there twice"},
      {R"({"x":{"shape":[],"shape":[]}})", 0, "shape is there twice"},
      {R"({"x":{"data_offsets":[0,0],"data_offsets":[0,0]}})", 0, "data_offsets is there twice"},
      {R"({"x":{"strides":[1]}})", 0, "unknown key \"strides\""},
      {R"({"x\n\u0000":{"a":1}})", 0, R"(tensor "x\n\x00": unknown key "a")"},
      {One("7", "[1]", "[0,4]"), 4, "the number 7 stands where none belongs"},
      {One("\"F31\"", "[1]", "[0,4]"), 4, "tensor \"x\": unknown dtype \"F31\""},
      {One("\"f32\"", "[1]", "[0,4]"), 4, "unknown dtype \"f32\""},
      {One("\"\"", "[1]", "[0,4]"), 4, "unknown dtype \"\""},
      {One("\"F32\"", "1", "[0,4]"), 4, "the number 1 stands where none belongs"},
      {One("\"F32\"", "[-1]", "[0,4]"), 4, "-1 is negative"},
      {One("\"F32\"", "[1.5]", "[0,4]"), 4, "1.5 is not a whole number"},
      {One("\"F32\"", "[1e300]", "[0,4]"), 4, "1e300 is not a whole number"},
      {One("\"F32\"", "[18446744073709551615]", "[0,4]"), 4, "18446744073709551615 is not a whole number"},
      {One("\"F32\"", "[99999999999999999999999]", "[0,4]"), 4, "is not a whole number"},
      {One("\"F32\"", "[\"1\"]", "[0,4]"), 4, "the string \"1\" stands where none belongs"},
      {One("\"F32\"", "[[1]]", "[0,4]"), 4, "an array stands where none belongs"},
      {One("\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "has more dimensions than the limit of 8"},
      {One("\"F32\"", "[2]", "[0,4]"), 4, "shape [2] of F32 takes 8 bytes, data_offsets hold 4"},
      {One("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0, "takes more than 2^63 bytes"},
      {One("\"F32\"", "[9223372036854775807,4]", "[0,0]"), 0, "takes more than 2^63 bytes"},
      {One("\"U8\"", "[9223372036854775807]", "[0,9223372036854775807]"), 4, "are not a range of the 4 data bytes"},
      {One("\"F32\"", "[1]", "[0]"), 4, "data_offsets must have two numbers"},
      {One("\"F32\"", "[1]", "[]"), 4, "data_offsets must have two numbers"},
      {One("\"F32\"", "[1]", "[0,4,4]"), 4, "data_offsets must have two numbers"},
      {One("\"F32\"", "[1]", "[4,0]"), 4, "data_offsets [4, 0] are not a range of the 4 data bytes"},
      {One("\"F32\"", "[1]", "[-4,0]"), 4, "-4 is negative"},
      {One("\"F32\"", "[1]", "[0,8]"), 4, "are not a range of the 4 data bytes"},
      {One("\"F32\"", "[1]", "[0.0,4]"), 4, "0.0 is not a whole number"},
      {One("\"F32\"", "[1]", "{}"), 4, "an object stands where none belongs"},
      {One("\"F32\"", "[1]", "[4,8]"), 8, "starts at data byte 4, after a hole that starts at 0"},
      {One("\"F32\"", "[1]", "[0,4]"), 8, "4 bytes after the last tensor belong to no tensor"},
      {"{}", 1, "1 bytes after the last tensor belong to no tensor"},
      {Two(0, 4, 2, 6), 6, "tensor \"y\": starts at data byte 2, inside the tensor before it, which ends at 4"},
      {Two(0, 4, 0, 4), 4, "inside the tensor before it"},
      {Two(0, 4, 1, 3), 4, "inside the tensor before it"},
      {Two(0, 4, 5, 8), 8, "tensor \"y\": starts at data byte 5, after a hole that starts at 4"},
      {absl::StrCat(R"({"x":)", Entry("U8", "[1]", 0, 1), R"(,"x":)", Entry("U8", "[1]", 1, 2), "}"), 2,
       "tensor \"x\": is in the header twice"},
      {R"({"__metadata__":7})", 0, "the number 7 stands where none belongs"},
      {R"({"__metadata__":[]})", 0, "an array stands where none belongs"},
      {R"({"__metadata__":{"a":1}})", 0, "the number 1 stands where none belongs"},
      {R"({"__metadata__":{"a":null}})", 0, "null is not allowed"},
      {R"({"__metadata__":{"a":{}}})", 0, "an object stands where none belongs"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "__metadata__ is there twice"},
  };
  for (const BadHeader& bad : cases) {
    const absl::Status status = Parse(bad.json, bad.data_bytes).status();
    EXPECT_EQ(status.code(), kInvalid) << bad.json.substr(0, 100);
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message)) << bad.json.substr(0, 100);
    EXPECT_THAT(std::string(status.message()), HasSubstr("f.safetensors: ")) << bad.json.substr(0, 100);
    EXPECT_LT(status.message().size(), 400u);
  }
}

std::vector<FileTensor> SmallFile() {
  return {{"model.embed_tokens.weight", "F32", {2, 3}, std::string(24, 'a')},
          {"model.norm.weight", "BF16", {3}, std::string(6, 'b')},
          {"lm_head.weight", "F16", {2, 2}, std::string(8, 'c')}};
}

TEST(SafetensorsFileTest, CutShortAtAnyByteIsRefused) {
  const TempDir dir;
  const std::string bytes = MakeSafetensors(SmallFile());
  ASSERT_TRUE(ReadBytes(dir, bytes).ok());
  for (size_t size = 0; size < bytes.size(); ++size) {
    const absl::Status status = ReadBytes(dir, bytes.substr(0, size)).status();
    EXPECT_EQ(status.code(), kInvalid) << size;
    EXPECT_THAT(std::string(status.message()), HasSubstr("f.safetensors: ")) << size;
  }
  EXPECT_EQ(ReadBytes(dir, bytes + "x").status().code(), kInvalid);
}

// Any byte of the header replaced by any other: either refused, or a header that is as sound as the first.
TEST(SafetensorsFileTest, AnyWrongByteIsRefusedOrHarmless) {
  std::string json = MakeSafetensorsHeader(SmallFile());
  int num_refused = 0;
  int num_harmless = 0;
  for (size_t i = 0; i < json.size(); ++i) {
    const char right = json[i];
    for (int wrong = 0; wrong < 256; ++wrong) {
      if (static_cast<char>(wrong) == right) continue;
      json[i] = static_cast<char>(wrong);
      const Tensors tensors = Parse(json, 38);
      ++(tensors.ok() ? num_harmless : num_refused);
      if (tensors.ok()) ExpectSound(*tensors, 1000, 38);
    }
    json[i] = right;
  }
  EXPECT_GT(num_refused, 2 * num_harmless);  // most of what is accepted is another letter in a name
}

TEST(SafetensorsFileTest, AbsurdLengthsAreRefused) {
  const TempDir dir;
  std::string bytes = MakeSafetensors(SmallFile());
  for (const uint64_t length :
       {uint64_t{0}, uint64_t{1}, uint64_t{bytes.size() - 7}, uint64_t{100'000'001}, uint64_t{1} << 63, ~uint64_t{0}}) {
    for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
    EXPECT_EQ(ReadBytes(dir, bytes).status().code(), kInvalid) << length;
  }
  EXPECT_THAT(std::string(ReadBytes(dir, bytes).status().message()),
              HasSubstr("header length is 18446744073709551615 bytes"));
}

TEST(SafetensorsFileTest, HeaderAboveTheFormatsLimitIsRefusedUnread) {
  const TempDir dir;
  WriteFile(dir.path() / "f.safetensors", std::string("\x01\xE1\xF5\x05\0\0\0\0{}", 10));
  std::filesystem::resize_file(dir.path() / "f.safetensors", 200'000'000);  // sparse
  const absl::StatusOr<InputFile> file = InputFile::Open(dir.path() / "f.safetensors");
  ASSERT_TRUE(file.ok());
  const absl::Status status = ReadSafetensorsHeader(*file).status();
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_THAT(std::string(status.message()), HasSubstr("header length is 100000001 bytes, limit is 100000000"));
}

// Large hostile headers end soon.
TEST(SafetensorsFileTest, LargeHeadersAreRefusedInTime) {
  std::string many = "{";
  for (int i = 0; i < 300'000; ++i) absl::StrAppend(&many, i > 0 ? ",\"" : "\"", i, "\":", Entry("U8", "[0]", 0, 0));
  many += "}";
  const std::string spaces = absl::StrCat("{", std::string(90'000'000, ' '));
  const std::string name = absl::StrCat("{\"", std::string(90'000'000, 'n'), "\":{}}");
  const std::string metadata = absl::StrCat(R"({"__metadata__":{"a":")", std::string(90'000'000, 'm'));
  std::string entries = R"({"__metadata__":{)";
  while (entries.size() < 50'000'000) entries += R"("":"",)";
  for (const std::string* json : std::vector<const std::string*>{&many, &entries, &spaces, &name, &metadata}) {
    const Stopwatch stopwatch;
    EXPECT_EQ(Parse(*json, 0).status().code(), kInvalid);
    EXPECT_LT(stopwatch.Seconds(), kRefusalSeconds) << json->substr(0, 40);
  }
  EXPECT_THAT(std::string(Parse(many, 0).status().message()), HasSubstr("more tensors than the limit of 262144"));
  EXPECT_THAT(std::string(Parse(entries, 0).status().message()), HasSubstr("more entries than the limit of 65536"));
  EXPECT_THAT(std::string(Parse(spaces, 0).status().message()), HasSubstr("without a quotation mark"));
}

}  // namespace
}  // namespace cadre
