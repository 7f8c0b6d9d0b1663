#include "simd/scalar.h"
#define CNN_ISA scalar
#include "ukernels/all.h"
