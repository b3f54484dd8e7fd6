// Borrowed, contiguous, row-major tensors. A view never owns: a DeviceBuffer does.
#ifndef CADRE_KERNELS_VIEW_H_
#define CADRE_KERNELS_VIEW_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "kernels/check.h"
#include "kernels/dtype.h"

namespace cadre {

// Up to four dimensions; sizes in elements.
class Shape {
 public:
  static constexpr int kMaxRank = 4;

  constexpr Shape() = default;
  constexpr Shape(std::initializer_list<int64_t> dims) {
    CADRE_CHECK_LE(dims.size(), static_cast<size_t>(kMaxRank));
    for (int64_t dim : dims) {
      CADRE_CHECK_GE(dim, int64_t{0});
      dims_[static_cast<size_t>(rank_++)] = dim;
    }
  }

  constexpr int rank() const { return rank_; }
  constexpr int64_t operator[](int i) const { return dims_[static_cast<size_t>(i)]; }
  constexpr int64_t num_elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank_; ++i) n *= dims_[static_cast<size_t>(i)];
    return n;
  }
  constexpr bool operator==(const Shape&) const = default;

 private:
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

// Of a tensor whose rows, along the last dimension, lie one behind the other.
constexpr int64_t SizeBytes(DType dtype, const Shape& shape) {
  if (shape.rank() == 0) return RowBytes(dtype, 1);
  int64_t num_rows = 1;
  for (int i = 0; i + 1 < shape.rank(); ++i) num_rows *= shape[i];
  return num_rows * RowBytes(dtype, shape[shape.rank() - 1]);
}

// A typed pointer into device memory with a shape. `Byte` is `std::byte` (View) or `const std::byte` (ConstView).
template <typename Byte>
class BasicView {
 public:
  constexpr BasicView() = default;
  constexpr BasicView(Byte* data, DType dtype, Shape shape) : data_(data), dtype_(dtype), shape_(shape) {}
  // A mutable view may be read.
  // clang-format off
  template <typename Other>
    requires(std::is_const_v<Byte> && !std::is_const_v<Other>)
  constexpr BasicView(const BasicView<Other>& other)  // NOLINT(google-explicit-constructor)
      : data_(other.raw()), dtype_(other.dtype()), shape_(other.shape()) {}
  // clang-format on

  // An absent optional argument is an empty view.
  constexpr bool empty() const { return data_ == nullptr; }
  constexpr Byte* raw() const { return data_; }
  constexpr DType dtype() const { return dtype_; }
  constexpr const Shape& shape() const { return shape_; }
  constexpr int64_t dim(int i) const { return shape_[i]; }
  constexpr int64_t num_elements() const { return shape_.num_elements(); }
  constexpr size_t size_bytes() const { return static_cast<size_t>(SizeBytes(dtype_, shape_)); }

  // The elements; only where the memory is addressable by the host, and T must be the view's dtype.
  template <typename T>
  auto* data() const {
    CADRE_CHECK(dtype_ == DTypeOf<std::remove_const_t<T>>::value);
    using Element = std::conditional_t<std::is_const_v<Byte>, const T, T>;
    return reinterpret_cast<Element*>(data_);
  }

  // Rows [begin, begin + count) of the first dimension.
  constexpr BasicView Rows(int64_t begin, int64_t count) const {
    CADRE_CHECK_GE(begin, int64_t{0});
    CADRE_CHECK_LE(begin + count, shape_[0]);
    CADRE_CHECK(!IsQuantized(dtype_) || shape_.rank() == 2);
    const int64_t row_bytes = shape_[0] == 0 ? 0 : SizeBytes(dtype_, shape_) / shape_[0];
    Shape rows = shape_;
    switch (shape_.rank()) {
      case 1:
        rows = {count};
        break;
      case 2:
        rows = {count, shape_[1]};
        break;
      case 3:
        rows = {count, shape_[1], shape_[2]};
        break;
      default:
        rows = {count, shape_[1], shape_[2], shape_[3]};
        break;
    }
    return {data_ + begin * row_bytes, dtype_, rows};
  }

  // The same elements under another shape of equal size; of float and integer types.
  constexpr BasicView Reshape(Shape shape) const {
    CADRE_CHECK(!IsQuantized(dtype_));
    CADRE_CHECK_EQ(shape.num_elements(), num_elements());
    return {data_, dtype_, shape};
  }

 private:
  Byte* data_ = nullptr;
  DType dtype_ = DType::kF32;
  Shape shape_;
};

using View = BasicView<std::byte>;
using ConstView = BasicView<const std::byte>;

}  // namespace cadre

#endif  // CADRE_KERNELS_VIEW_H_
