#include "simd/sse2.h"
#define CNN_ISA sse2
#include "ukernels/all.h"
