#include "picture.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace ov2vss {

namespace {

constexpr int kLargestSide = 1 << 15;

std::uint8_t clipped(int value) {
    return static_cast<std::uint8_t>(std::min(std::max(value, 0), 255));
}

// Y, U, V -> R, G, B in 16-bit fixed point.
struct Matrix {
    int y, rv, gu, gv, bu, black;

    Matrix(double kr, double kb, bool full) {
        const double kg = 1 - kr - kb, scale = 65536.0, luma = full ? 1.0 : 255.0 / 219,
                     chroma = full ? 1.0 : 255.0 / 224;
        auto fixed = [&](double value) { return static_cast<int>(std::lround(value * scale)); };
        y = fixed(luma);
        rv = fixed(chroma * 2 * (1 - kr));
        bu = fixed(chroma * 2 * (1 - kb));
        gu = fixed(chroma * 2 * (1 - kb) * kb / kg);
        gv = fixed(chroma * 2 * (1 - kr) * kr / kg);
        black = full ? 0 : 16;
    }
};

Matrix matrix_of(int matrix) {
    const bool full = matrix == OV2VSS_BT709_FULL || matrix == OV2VSS_BT601_FULL;
    return matrix == OV2VSS_BT709 || matrix == OV2VSS_BT709_FULL ? Matrix(0.2126, 0.0722, full)
                                                                 : Matrix(0.299, 0.114, full);
}

}  // namespace

Picture rgb_of(const ov2vss_image& image, std::vector<std::uint8_t>& held) {
    const int w = image.width, h = image.height;
    if (w < 1 || h < 1 || w > kLargestSide || h > kLargestSide)
        throw argument_error("a frame of " + std::to_string(w) + " x " + std::to_string(h) + " pixels",
                             "give sides of 1 to " + std::to_string(kLargestSide));
    if (image.format < OV2VSS_RGB || image.format > OV2VSS_NV12)
        throw argument_error("image format " + std::to_string(image.format),
                             "use OV2VSS_RGB, OV2VSS_BGR or OV2VSS_NV12");
    const bool nv12 = image.format == OV2VSS_NV12;
    const std::ptrdiff_t least = nv12 ? w : 3 * static_cast<std::ptrdiff_t>(w);
    std::ptrdiff_t strides[2];
    for (int plane = 0; plane < (nv12 ? 2 : 1); ++plane) {
        if (!image.planes[plane])
            throw argument_error("image plane " + std::to_string(plane) + " is null", "give its memory");
        strides[plane] = image.strides[plane] ? image.strides[plane] : least;
        if (std::abs(strides[plane]) < least)
            throw argument_error(
                "image stride " + std::to_string(strides[plane]) + " for a width of " + std::to_string(w),
                "give bytes from a row to the next");
    }
    if (image.format == OV2VSS_RGB) return {image.planes[0], h, w, strides[0]};
    held.resize(3 * static_cast<std::size_t>(w) * static_cast<std::size_t>(h));
    std::uint8_t* out = held.data();
    if (image.format == OV2VSS_BGR) {
        for (int y = 0; y < h; ++y) {
            const std::uint8_t* p = image.planes[0] + y * strides[0];
            for (int x = 0; x < w; ++x, p += 3, out += 3) {
                out[0] = p[2];
                out[1] = p[1];
                out[2] = p[0];
            }
        }
    } else {
        if (w % 2 || h % 2) throw argument_error("an NV12 frame with an odd side", "give even sides");
        if (image.matrix < OV2VSS_BT709 || image.matrix > OV2VSS_BT601_FULL)
            throw argument_error("image matrix " + std::to_string(image.matrix), "use one of ov2vss_matrix");
        const Matrix m = matrix_of(image.matrix);
        constexpr int half = 1 << 15;
        for (int y = 0; y < h; ++y) {
            const std::uint8_t* luma = image.planes[0] + y * strides[0];
            const std::uint8_t* chroma = image.planes[1] + (y / 2) * strides[1];
            for (int x = 0; x < w; ++x, out += 3) {
                const int c = (luma[x] - m.black) * m.y + half, u = chroma[x & ~1] - 128, v = chroma[x | 1] - 128;
                out[0] = clipped((c + m.rv * v) >> 16);
                out[1] = clipped((c - m.gu * u - m.gv * v) >> 16);
                out[2] = clipped((c + m.bu * u) >> 16);
            }
        }
    }
    return {held.data(), h, w, 3 * static_cast<std::ptrdiff_t>(w)};
}

}  // namespace ov2vss
