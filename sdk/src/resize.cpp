// OpenCV's INTER_LINEAR and INTER_AREA for three channels of bytes, to the bit: the same tables, fixed point and order
// of sums. Built without fused multiply-add.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "picture.h"

namespace ov2vss {

namespace {

constexpr int kOne = 2048;  // 1 in the fixed point of coefficients

std::uint8_t byte_of(float value) {
    return static_cast<std::uint8_t>(std::min(std::max(std::lrint(value), 0L), 255L));
}

// Two neighbours of every place along one axis, and their weights.
struct Taps {
    std::vector<int> first;
    std::vector<int> weight0, weight1;
    int inner = 0;  // places from here on have one neighbour only

    // `area`: as INTER_AREA has it where it does not shrink.
    Taps(int in, int out, double scale, double inverse, bool area, bool hold)
        : first(out), weight0(out), weight1(out), inner(out) {
        for (int i = 0; i < out; ++i) {
            float f = 0;
            int s = 0;
            if (area) {
                s = static_cast<int>(std::floor(i * scale));
                f = static_cast<float>((i + 1) - (s + 1) * inverse);
                f = f <= 0 ? 0.0f : f - std::floor(f);
            } else {
                f = static_cast<float>((i + 0.5) * scale - 0.5);
                s = static_cast<int>(std::floor(f));
                f -= static_cast<float>(s);
            }
            if (hold) {
                if (s < 0) {
                    f = 0;
                    s = 0;
                }
                if (s + 1 >= in) {
                    inner = std::min(inner, i);
                    f = 0;
                    s = in - 1;
                }
            }
            first[i] = s;
            weight0[i] = static_cast<int>(std::lrint((1.0f - f) * kOne));
            weight1[i] = static_cast<int>(std::lrint(f * kOne));
        }
    }
};

void resize_linear(const Picture& from, std::uint8_t* to, int height, int width, bool area) {
    const double across = static_cast<double>(width) / from.width, down = static_cast<double>(height) / from.height;
    const Taps x(from.width, width, 1.0 / across, across, area, true),
        y(from.height, height, 1.0 / down, down, area, false);
    const std::size_t row = 3 * static_cast<std::size_t>(width);
    std::vector<int> rows[2] = {std::vector<int>(row), std::vector<int>(row)};
    int held[2] = {-1, -1};
    auto stretch = [&](int at, std::vector<int>& out) {
        const std::uint8_t* line = from.data + at * from.stride;
        for (int i = 0; i < x.inner; ++i) {
            const std::uint8_t* p = line + 3 * static_cast<std::size_t>(x.first[i]);
            const int a = x.weight0[i], b = x.weight1[i];
            int* q = out.data() + 3 * static_cast<std::size_t>(i);
            q[0] = p[0] * a + p[3] * b;
            q[1] = p[1] * a + p[4] * b;
            q[2] = p[2] * a + p[5] * b;
        }
        for (int i = x.inner; i < width; ++i)
            for (int c = 0; c < 3; ++c)
                out[3 * static_cast<std::size_t>(i) + c] = line[3 * static_cast<std::size_t>(x.first[i]) + c] * kOne;
    };
    for (int i = 0; i < height; ++i) {
        const int upper = std::min(std::max(y.first[i], 0), from.height - 1);
        const int lower = std::min(std::max(y.first[i] + 1, 0), from.height - 1);
        if (held[0] != upper) {
            if (held[1] == upper) {
                std::swap(rows[0], rows[1]);
                std::swap(held[0], held[1]);
            } else {
                stretch(upper, rows[0]);
                held[0] = upper;
            }
        }
        if (held[1] != lower) {
            stretch(lower, rows[1]);
            held[1] = lower;
        }
        const int a = y.weight0[i], b = y.weight1[i];
        const int *up = rows[0].data(), *low = rows[1].data();
        std::uint8_t* out = to + i * row;
        for (std::size_t k = 0; k < row; ++k)
            out[k] = static_cast<std::uint8_t>((((a * (up[k] >> 4)) >> 16) + ((b * (low[k] >> 4)) >> 16) + 2) >> 2);
    }
}

// Sides that shrink by whole numbers.
void resize_blocks(const Picture& from, std::uint8_t* to, int height, int width, int down, int across) {
    const bool quarters = down == 2 && across == 2;
    const float share = 1.0f / static_cast<float>(down * across);
    for (int i = 0; i < height; ++i)
        for (int j = 0; j < width; ++j)
            for (int c = 0; c < 3; ++c) {
                int sum = 0;
                for (int y = 0; y < down; ++y) {
                    const std::uint8_t* p =
                        from.data + (i * down + y) * from.stride + 3 * static_cast<std::ptrdiff_t>(j) * across + c;
                    for (int x = 0; x < across; ++x) sum += p[3 * x];
                }
                to[3 * (static_cast<std::size_t>(i) * width + j) + c] =
                    quarters ? static_cast<std::uint8_t>((sum + 2) >> 2) : byte_of(static_cast<float>(sum) * share);
            }
}

// What a place of the input gives to one of the output.
struct Share {
    int in, out;
    float weight;
};

std::vector<Share> shares(int in, int out, double scale) {
    std::vector<Share> found;
    for (int i = 0; i < out; ++i) {
        const double begin = i * scale, end = begin + scale, cell = std::min(scale, in - begin);
        int first = static_cast<int>(std::ceil(begin)), last = static_cast<int>(std::floor(end));
        last = std::min(last, in - 1);
        first = std::min(first, last);
        if (first - begin > 1e-3) found.push_back({first - 1, i, static_cast<float>((first - begin) / cell)});
        for (int k = first; k < last; ++k) found.push_back({k, i, static_cast<float>(1.0 / cell)});
        if (end - last > 1e-3)
            found.push_back({last, i, static_cast<float>(std::min(std::min(end - last, 1.0), cell) / cell)});
    }
    return found;
}

void resize_area(const Picture& from, std::uint8_t* to, int height, int width, double down, double across) {
    const std::vector<Share> rows = shares(from.height, height, down), columns = shares(from.width, width, across);
    const std::size_t row = 3 * static_cast<std::size_t>(width);
    std::vector<float> line(row), sum(row);
    int current = rows.empty() ? 0 : rows[0].out;
    auto write = [&] {
        for (std::size_t k = 0; k < row; ++k) to[current * row + k] = byte_of(sum[k]);
    };
    for (const Share& part : rows) {
        std::fill(line.begin(), line.end(), 0.0f);
        const std::uint8_t* source = from.data + part.in * from.stride;
        for (const Share& column : columns) {
            const std::uint8_t* p = source + 3 * static_cast<std::ptrdiff_t>(column.in);
            float* q = line.data() + 3 * static_cast<std::ptrdiff_t>(column.out);
            for (int c = 0; c < 3; ++c) q[c] = q[c] + static_cast<float>(p[c]) * column.weight;
        }
        if (part.out != current) {
            write();
            current = part.out;
            for (std::size_t k = 0; k < row; ++k) sum[k] = part.weight * line[k];
        } else {
            for (std::size_t k = 0; k < row; ++k) sum[k] += part.weight * line[k];
        }
    }
    write();
}

}  // namespace

void resize(const Picture& from, std::uint8_t* to, int height, int width) {
    if (from.height == height && from.width == width) {
        for (int y = 0; y < height; ++y)
            std::memcpy(to + 3 * static_cast<std::size_t>(y) * width, from.data + y * from.stride,
                        3 * static_cast<std::size_t>(width));
        return;
    }
    const double down = 1.0 / (static_cast<double>(height) / from.height);
    const double across = 1.0 / (static_cast<double>(width) / from.width);
    const int whole_down = static_cast<int>(std::lrint(down)), whole_across = static_cast<int>(std::lrint(across));
    constexpr double epsilon = std::numeric_limits<double>::epsilon();
    const bool whole = std::abs(down - whole_down) < epsilon && std::abs(across - whole_across) < epsilon;
    const bool area = std::max(static_cast<double>(from.height) / height, static_cast<double>(from.width) / width) > 2;
    const bool shrinks = down >= 1 && across >= 1;
    if (area && shrinks && whole)
        resize_blocks(from, to, height, width, whole_down, whole_across);
    else if (area && shrinks)
        resize_area(from, to, height, width, down, across);
    else if (whole && whole_down == 2 && whole_across == 2)
        resize_blocks(from, to, height, width, 2, 2);
    else
        resize_linear(from, to, height, width, area);
}

}  // namespace ov2vss
