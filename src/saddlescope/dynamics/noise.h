/* Counter-based Gaussian noise: Philox4x32-10 (Salmon et al. 2011) and Box-Muller, vectorisable by the compiler.
   noise.py holds the same in torch; T is the floating type of the kernel. */
#include <stdint.h>

typedef struct { uint32_t a, b, c, d; } words;

/* Four words of 32 random bits for one counter; 64-bit lanes, because that is the multiply vector units have. */
static inline __attribute__((always_inline)) words philox(uint64_t c0, uint64_t c1, uint64_t c2, uint64_t c3,
                                                          uint64_t k0, uint64_t k1) {
  const uint64_t low = 0xffffffffu;
#pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    uint64_t p = (c0 & low) * 0xD2511F53u, q = (c2 & low) * 0xCD9E8D57u;
    c0 = (q >> 32) ^ c1 ^ k0;
    c1 = q & low;
    c2 = (p >> 32) ^ c3 ^ k1;
    c3 = p & low;
    k0 = (k0 + 0x9E3779B9u) & low;
    k1 = (k1 + 0xBB67AE85u) & low;
  }
  return (words){(uint32_t)c0, (uint32_t)c1, (uint32_t)c2, (uint32_t)c3};
}

/* Two independent standard normals. The radius uses all 32 bits, so the tail ends at sqrt(66 ln 2) = 6.76. The angle is
   a quadrant (2 bits) and an offset in [-pi/4, pi/4), where Taylor's polynomials are exact to rounding. */
static inline __attribute__((always_inline)) void normal_pair(uint32_t a, uint32_t b, T *x, T *y) {
  T u = ((T)a + (T)0.5) * (T)0x1p-32;
  T r = SQRT((T)-2 * LOG(u));
  T t = ((T)((int32_t)(b & 0x3fffffff) - 0x20000000) + (T)0.5) * (T)1.4629180792671596e-9, z = t * t;
  T sine = t * (1 + z * ((T)(-1. / 6) + z * ((T)(1. / 120) + z * ((T)(-1. / 5040) + z * (T)(1. / 362880)))));
  T cosine = 1 + z * ((T)-0.5 + z * ((T)(1. / 24) + z * ((T)(-1. / 720) + z * (T)(1. / 40320))));
#ifdef DOUBLE
  T z2 = z * z, z5 = z2 * z2 * z;
  sine += t * z5 * (-1. / 39916800 + z * (1. / 6227020800 - z * (1. / 1307674368000)));
  cosine += z5 * (-1. / 3628800 + z * (1. / 479001600 + z * (-1. / 87178291200 + z * (1. / 20922789888000))));
#endif
  uint32_t quadrant = b >> 30;
  T p = (quadrant & 1) ? sine : cosine, q = (quadrant & 1) ? cosine : sine;
  *x = r * (((quadrant ^ (quadrant >> 1)) & 1) ? -p : p);
  *y = r * ((quadrant & 2) ? -q : q);
}
