// GatherRows: the token embedding, and rows picked for the head.
#include <algorithm>
#include <cstdint>

#include "kernels/cpu/convert.h"
#include "kernels/cpu/cpu_ops.h"

namespace cadre {

void CpuOps::GatherRows(View out, ConstView table, ConstView rows) {
  const int64_t num_rows = rows.dim(0);
  const int64_t d = table.dim(1);
  CADRE_CHECK(out.shape() == Shape({num_rows, d}));
  float* const out_data = out.data<float>();
  const int32_t* const row_ids = rows.data<int32_t>();
  for (int64_t r = 0; r < num_rows; ++r) {
    if (row_ids[r] == kPadding) continue;
    CADRE_CHECK_GE(row_ids[r], 0);
    CADRE_CHECK_LT(int64_t{row_ids[r]}, table.dim(0));
  }
  ForRows(num_rows, d, [&](int64_t r) {
    if (row_ids[r] == kPadding) {
      std::fill_n(out_data + r * d, d, 0.0f);
    } else {
      LoadFloats(out_data + r * d, table, row_ids[r] * d, d);
    }
  });
}

}  // namespace cadre
