// From a row's values to the unsigned numbers that trees compare: src/backend/tabular/forest/slots.rs, for each slot the same.
#pragma once

#include "kernel.h"

enum Code : uint32_t { ORDERED = 0, RANKED = 1, CATEGORY = 2 };
enum Missing : uint32_t { NAN_IS_ZERO = 0, NAN_ONLY = 1, NAN_AND_ZERO = 2 };

// How a slot's number is made from a row. Slot 0, the leaves', is not among them: its number is always 0.
struct Slot {
    uint32_t feature;
    uint32_t code;
    // Of ordered and ranked ones.
    uint32_t missing;
    uint32_t missing_left;
    // Where the thresholds of ranked ones lie, or the 64-bit words of categories, and how many they are.
    uint32_t first, count;
    // Which categories go left beside those whose bit is set.
    uint32_t nan_left, others_left, toward_zero;
    // Whether the model sees values as floats.
    uint32_t single;
};

struct Rows {
    // Floats or doubles, `features` a row.
    const void* values;
    const Slot* slots;
    const double* thresholds;
    const uint64_t* categories;
    uint32_t count, features, slots_tested, are_double;
};

static inline __device__ uint32_t bits_of(float value) {
    union { float value; uint32_t bits; } both;
    both.value = value;
    return both.bits;
}

static inline __device__ float float_of(uint32_t bits) {
    union { uint32_t bits; float value; } both;
    both.bits = bits;
    return both.value;
}

// The bits of a float as a number of the same order; both zeros are one.
static __device__ uint32_t ordered(float value) {
    uint32_t bits = value == 0.0f ? 0 : bits_of(value);
    return bits >> 31 == 0 ? bits | 0x80000000u : ~bits;
}

// How many thresholds are smaller than the value.
static __device__ uint32_t rank(const double* RESTRICT thresholds, uint32_t count, double value) {
    uint32_t start = 0;
    while (count > 1) {
        uint32_t half = count / 2;
        start = thresholds[start + half - 1] < value ? start + half : start;
        count -= half;
    }
    return start + (count == 1 && thresholds[start] < value);
}

static __device__ bool category_goes_left(const uint64_t* RESTRICT words, const Slot& slot, double value) {
    if (slot.single) value = (float)value;
    if (isnan(value)) return slot.nan_left;
    bool known = value >= 0.0 || (slot.toward_zero && value > -1.0);
    double whole = known ? trunc(value) : -1.0;
    if (!(whole >= 0.0 && whole < 64.0 * slot.count)) return slot.others_left;
    uint32_t number = (uint32_t)whole;
    return words[number / 64] >> (number % 64) & 1;
}

// The number of a slot for a row.
static __device__ uint32_t encode(const Rows& rows, const Slot& slot, uint32_t row) {
    const double ZERO = 1e-35f; // formats::trees::ZERO
    uint64_t place = (uint64_t)row * rows.features + slot.feature;
    double value = rows.are_double ? ((const double*)rows.values)[place] : ((const float*)rows.values)[place];
    if (slot.code == CATEGORY) return !category_goes_left(rows.categories + slot.first, slot, value);
    bool is_missing = (slot.missing == NAN_ONLY && isnan(value)) ||
                      (slot.missing == NAN_AND_ZERO && (isnan(value) || fabs(value) <= ZERO));
    if (is_missing) return slot.missing_left ? 0 : 0xFFFFFFFFu;
    if (slot.missing == NAN_IS_ZERO && isnan(value)) value = 0.0;
    if (slot.code == ORDERED) return ordered((float)value);
    return rank(rows.thresholds + slot.first, slot.count, value);
}

// Encodes rows from `first` on, as many as a tile has, all threads together: number `lane` of a slot lies at
// `slot * tile_rows + lane`.
static __device__ void encode_tile(const Rows& rows, uint32_t first, uint32_t* tile, uint32_t tile_rows) {
    uint32_t numbers = tile_rows * (rows.slots_tested + 1);
    for (uint32_t at = threadIdx.x; at < numbers; at += blockDim.x) {
        uint32_t slot = at / tile_rows, row = first + at % tile_rows;
        tile[at] = slot > 0 && row < rows.count ? encode(rows, rows.slots[slot - 1], row) : 0;
    }
    __syncthreads();
}
