// Requests' tensors to one batch and back: rows are gathered from where each request has them, cast, padded and normalised on
// the way, and a batch's rows are given back to where each request wants them.

#include "kernel.h"

enum Type : uint32_t { BOOL = 0, U8, I8, U16, I16, U32, I32, U64, I64, F16, BF16, F32, F64 };

// The rows of one request. A row is `outer` times `inner` elements, of which a batch's may have more.
struct Piece {
    void* data;
    uint32_t first_row, rows;
    uint32_t outer, inner;
};

struct Batch {
    // Ascending by their first rows, which follow each other.
    const Piece* pieces;
    void* data;
    // Of each channel; null: values are as they are.
    const float* means;
    const float* scales;
    // What stands where a row has no element, and in rows that nobody has.
    double padding;
    uint32_t piece_count;
    uint32_t rows, outer, inner;
    // Channels follow each other every so many elements of a row.
    uint32_t channels, channel_elements;
    uint32_t piece_type, batch_type;
};

static __device__ float half_to_float(uint32_t bits) {
    uint32_t sign = (bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    union { uint32_t bits; float value; } both;
    if (exponent == 0) { // zero, or a multiple of 2^-24
        float value = fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    both.bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    return both.value;
}

// To the nearest, of two that are equally near the even one.
static __device__ uint32_t float_to_half(float value) {
    union { float value; uint32_t bits; } both;
    both.value = value;
    uint32_t sign = both.bits >> 16 & 0x8000, bits = both.bits & 0x7FFFFFFF;
    if (bits > 0x7F800000) return sign | 0x7E00; // NaN
    if (bits >= 0x477FF000) return sign | 0x7C00; // 65520 and more
    if (bits < 0x38800000) { // below 2^-14: a multiple of 2^-24
        both.bits = bits;
        return sign | (uint32_t)rintf(both.value * 0x1p24f);
    }
    bits += 0xFFF + (bits >> 13 & 1);
    return sign | (bits - 0x38000000) >> 13;
}

static __device__ float bfloat_to_float(uint32_t bits) {
    union { uint32_t bits; float value; } both;
    both.bits = bits << 16;
    return both.value;
}

static __device__ uint32_t float_to_bfloat(float value) {
    union { float value; uint32_t bits; } both;
    both.value = value;
    if (isnan(value)) return both.bits >> 16 | 0x40;
    return (both.bits + 0x7FFF + (both.bits >> 16 & 1)) >> 16;
}

static __device__ double load(const void* data, uint32_t type, uint64_t at) {
    switch (type) {
    case BOOL: return ((const uint8_t*)data)[at] != 0;
    case U8: return ((const uint8_t*)data)[at];
    case I8: return ((const int8_t*)data)[at];
    case U16: return ((const uint16_t*)data)[at];
    case I16: return ((const int16_t*)data)[at];
    case U32: return ((const uint32_t*)data)[at];
    case I32: return ((const int32_t*)data)[at];
    case U64: return (double)((const uint64_t*)data)[at];
    case I64: return (double)((const int64_t*)data)[at];
    case F16: return half_to_float(((const uint16_t*)data)[at]);
    case BF16: return bfloat_to_float(((const uint16_t*)data)[at]);
    case F32: return ((const float*)data)[at];
    default: return ((const double*)data)[at];
    }
}

// To a type of floats: others are only copied.
static __device__ void store(void* data, uint32_t type, uint64_t at, double value) {
    switch (type) {
    case F16: ((uint16_t*)data)[at] = float_to_half((float)value); break;
    case BF16: ((uint16_t*)data)[at] = float_to_bfloat((float)value); break;
    case F32: ((float*)data)[at] = (float)value; break;
    default: ((double*)data)[at] = value;
    }
}

static __device__ uint32_t size_of(uint32_t type) {
    return type <= I8 ? 1 : type <= I16 || type == F16 || type == BF16 ? 2 : type <= I32 || type == F32 ? 4 : 8;
}

static __device__ void copy(void* to, uint64_t to_at, const void* from, uint64_t from_at, uint32_t size) {
    switch (size) {
    case 1: ((uint8_t*)to)[to_at] = ((const uint8_t*)from)[from_at]; break;
    case 2: ((uint16_t*)to)[to_at] = ((const uint16_t*)from)[from_at]; break;
    case 4: ((uint32_t*)to)[to_at] = ((const uint32_t*)from)[from_at]; break;
    default: ((uint64_t*)to)[to_at] = ((const uint64_t*)from)[from_at];
    }
}

// The piece that a row is in; there is none behind the last one's rows.
static __device__ const Piece* piece_of(const Batch& batch, uint32_t row) {
    uint32_t from = 0, to = batch.piece_count;
    while (from < to) {
        uint32_t middle = from + (to - from) / 2;
        if (batch.pieces[middle].first_row + batch.pieces[middle].rows <= row) from = middle + 1;
        else to = middle;
    }
    return from < batch.piece_count ? batch.pieces + from : nullptr;
}

// Where an element of a batch's row is in its piece, if it is there.
static __device__ bool is_in(const Piece* piece, const Batch& batch, uint32_t row, uint32_t element, uint64_t* at) {
    uint32_t outer = element / batch.inner, inner = element % batch.inner;
    if (piece == nullptr || outer >= piece->outer || inner >= piece->inner) return false;
    *at = ((uint64_t)(row - piece->first_row) * piece->outer + outer) * piece->inner + inner;
    return true;
}

// Calls with each element of a batch: its place there, which element of its row it is, and its piece and place in that, if it
// is in one.
template <typename Call>
static __device__ void each_element(const Batch& batch, Call call) {
    uint64_t elements = (uint64_t)batch.outer * batch.inner, all = batch.rows * elements;
    for (uint64_t here = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; here < all; here += (uint64_t)gridDim.x * blockDim.x) {
        uint32_t row = (uint32_t)(here / elements), element = (uint32_t)(here % elements);
        const Piece* piece = piece_of(batch, row);
        uint64_t there = 0;
        if (!is_in(piece, batch, row, element, &there)) piece = nullptr;
        call(here, element, piece, there);
    }
}

// A batch's type is one of floats, or that of its pieces. Padding is not normalised.
KERNEL(batch_gather, Batch) {
    each_element(args, [&](uint64_t to, uint32_t element, const Piece* piece, uint64_t from) {
        if (args.batch_type < F16 || (args.batch_type == args.piece_type && args.means == nullptr)) {
            // What is only copied keeps all its bits; nothing there is zero bits.
            const uint64_t zero = 0;
            copy(args.data, to, piece != nullptr ? piece->data : &zero, from, size_of(args.batch_type));
            if (piece == nullptr && args.batch_type >= F16) store(args.data, args.batch_type, to, args.padding);
            return;
        }
        double value = piece != nullptr ? load(piece->data, args.piece_type, from) : args.padding;
        if (piece != nullptr && args.means != nullptr) {
            uint32_t channel = element / args.channel_elements % args.channels;
            value = ((float)value - args.means[channel]) * args.scales[channel];
        }
        store(args.data, args.batch_type, to, value);
    });
}

// The way back: elements that no piece wants are left out, and nothing is cast.
KERNEL(batch_split, Batch) {
    each_element(args, [&](uint64_t from, uint32_t, const Piece* piece, uint64_t to) {
        if (piece != nullptr) copy(piece->data, to, args.data, from, size_of(args.batch_type));
    });
}
