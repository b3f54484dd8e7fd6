// The vector types of CUDA, with its sizes and alignments.
#ifndef CADRE_TESTS_SUPPORT_SIMT_VECTOR_TYPES_H_
#define CADRE_TESTS_SUPPORT_SIMT_VECTOR_TYPES_H_

// NOLINTBEGIN(bugprone-macro-parentheses): types and names take none
#define CADRE_SIMT_VECTOR2(name, type, alignment) \
  struct alignas(alignment) name {                \
    type x, y;                                    \
  };                                              \
  constexpr name make_##name(type x, type y) { return {x, y}; }

#define CADRE_SIMT_VECTOR3(name, type) \
  struct name {                        \
    type x, y, z;                      \
  };                                   \
  constexpr name make_##name(type x, type y, type z) { return {x, y, z}; }

#define CADRE_SIMT_VECTOR4(name, type, alignment) \
  struct alignas(alignment) name {                \
    type x, y, z, w;                              \
  };                                              \
  constexpr name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }
// NOLINTEND(bugprone-macro-parentheses)

CADRE_SIMT_VECTOR2(float2, float, 8)
CADRE_SIMT_VECTOR2(int2, int, 8)
CADRE_SIMT_VECTOR2(uint2, unsigned, 8)
CADRE_SIMT_VECTOR2(ushort2, unsigned short, 4)
CADRE_SIMT_VECTOR2(double2, double, 16)
CADRE_SIMT_VECTOR2(longlong2, long long, 16)
CADRE_SIMT_VECTOR2(ulonglong2, unsigned long long, 16)
CADRE_SIMT_VECTOR3(float3, float)
CADRE_SIMT_VECTOR3(int3, int)
CADRE_SIMT_VECTOR3(uint3, unsigned)
CADRE_SIMT_VECTOR4(float4, float, 16)
CADRE_SIMT_VECTOR4(int4, int, 16)
CADRE_SIMT_VECTOR4(uint4, unsigned, 16)
CADRE_SIMT_VECTOR4(ushort4, unsigned short, 8)
CADRE_SIMT_VECTOR4(uchar4, unsigned char, 4)

#undef CADRE_SIMT_VECTOR2
#undef CADRE_SIMT_VECTOR3
#undef CADRE_SIMT_VECTOR4

struct dim3 {
  unsigned x = 1, y = 1, z = 1;

  constexpr dim3() = default;
  constexpr dim3(unsigned vx, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}  // NOLINT: as in CUDA
  constexpr explicit dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

#endif  // CADRE_TESTS_SUPPORT_SIMT_VECTOR_TYPES_H_
