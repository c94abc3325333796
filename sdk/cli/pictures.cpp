#include "pictures.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstring>
#include <memory>
#include <stdexcept>

#ifdef OV2VSS_PNG
#include <png.h>
#endif
#ifdef OV2VSS_JPEG
#include <csetjmp>

#include <jpeglib.h>
#endif

namespace {

constexpr int kLargestSide = 1 << 15;

struct Closer {
    void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Closer>;

std::string suffix_of(const std::string& name) {
    const std::size_t dot = name.rfind('.');
    std::string suffix = dot == std::string::npos ? "" : name.substr(dot + 1);
    for (char& c : suffix) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    return suffix;
}

File opened(const std::string& path, const char* mode) {
    File file(std::fopen(path.c_str(), mode));
    if (!file)
        throw std::runtime_error(path + " cannot be " + (*mode == 'r' ? "read" : "written") + " (" +
                                 std::strerror(errno) + "); check the path");
    return file;
}

void read_ppm(const std::string& path, std::vector<std::uint8_t>& rgb, int& width, int& height) {
    const File file = opened(path, "rb");
    int levels = 0;
    if (std::fscanf(file.get(), "P6 %d %d %d", &width, &height, &levels) != 3 || levels != 255 || width < 1 ||
        height < 1 || width > kLargestSide || height > kLargestSide)
        throw std::runtime_error(path + " is no PPM of 8 bits (P6); write it anew");
    std::fgetc(file.get());
    rgb.resize(3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
    if (std::fread(rgb.data(), 1, rgb.size(), file.get()) != rgb.size())
        throw std::runtime_error(path + " is cut off; write it anew");
}

#ifdef OV2VSS_PNG
void read_png(const std::string& path, std::vector<std::uint8_t>& rgb, int& width, int& height) {
    png_image image{};
    image.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_file(&image, path.c_str()))
        throw std::runtime_error(path + " is no PNG (" + image.message + "); write it anew");
    width = static_cast<int>(image.width);
    height = static_cast<int>(image.height);
    if (image.width > kLargestSide || image.height > kLargestSide) {
        png_image_free(&image);
        throw std::runtime_error(path + " is too large; make it smaller");
    }
    image.format = PNG_FORMAT_RGB;
    rgb.resize(PNG_IMAGE_SIZE(image));
    const png_color black{};
    if (!png_image_finish_read(&image, &black, rgb.data(), 0, nullptr))
        throw std::runtime_error(path + " is damaged (" + image.message + "); write it anew");
}
#endif

#ifdef OV2VSS_JPEG
struct JpegError {
    jpeg_error_mgr base;
    std::jmp_buf back;
    char text[JMSG_LENGTH_MAX];
};

void jpeg_failed(j_common_ptr info) {
    auto* error = reinterpret_cast<JpegError*>(info->err);
    info->err->format_message(info, error->text);
    std::longjmp(error->back, 1);
}

// False with a message where the file is damaged. Nothing with a destructor lives across the jump.
bool decode_jpeg(std::FILE* file, std::vector<std::uint8_t>& rgb, int& width, int& height, JpegError& error) {
    jpeg_decompress_struct info{};
    info.err = jpeg_std_error(&error.base);
    error.base.error_exit = jpeg_failed;
    if (setjmp(error.back)) {
        jpeg_destroy_decompress(&info);
        return false;
    }
    jpeg_create_decompress(&info);
    jpeg_stdio_src(&info, file);
    jpeg_read_header(&info, TRUE);
    info.out_color_space = JCS_RGB;
    jpeg_start_decompress(&info);
    width = static_cast<int>(info.output_width);
    height = static_cast<int>(info.output_height);
    rgb.resize(3 * static_cast<std::size_t>(width) * static_cast<std::size_t>(height));
    while (info.output_scanline < info.output_height) {
        JSAMPROW row = rgb.data() + 3 * static_cast<std::size_t>(width) * info.output_scanline;
        jpeg_read_scanlines(&info, &row, 1);
    }
    jpeg_finish_decompress(&info);
    jpeg_destroy_decompress(&info);
    return true;
}

void read_jpeg(const std::string& path, std::vector<std::uint8_t>& rgb, int& width, int& height) {
    const File file = opened(path, "rb");
    JpegError error{};
    if (!decode_jpeg(file.get(), rgb, width, height, error))
        throw std::runtime_error(path + " is damaged (" + error.text + "); write it anew");
}
#endif

}  // namespace

std::string picture_kinds() {
    std::string kinds = "ppm";
#ifdef OV2VSS_PNG
    kinds += ", png";
#endif
#ifdef OV2VSS_JPEG
    kinds += ", jpg";
#endif
    return kinds;
}

bool is_picture(const std::string& name) {
    const std::string suffix = suffix_of(name);
    return !suffix.empty() &&
           (suffix == "jpeg" ? picture_kinds().find("jpg") : picture_kinds().find(suffix)) != std::string::npos &&
           suffix.size() >= 3;
}

void read_picture(const std::string& path, std::vector<std::uint8_t>& rgb, int& width, int& height) {
    const std::string suffix = suffix_of(path);
#ifdef OV2VSS_PNG
    if (suffix == "png") return read_png(path, rgb, width, height);
#endif
#ifdef OV2VSS_JPEG
    if (suffix == "jpg" || suffix == "jpeg") return read_jpeg(path, rgb, width, height);
#endif
    read_ppm(path, rgb, width, height);
}

bool can_write_png() {
#ifdef OV2VSS_PNG
    return true;
#else
    return false;
#endif
}

void write_png(const std::string& path, const void* ids, int bytes, int width, int height,
               const std::vector<std::uint8_t>& palette) {
#ifdef OV2VSS_PNG
    const std::string part = path + ".part";
    File file = opened(part, "wb");
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, nullptr);
    png_infop info = png ? png_create_info_struct(png) : nullptr;
    const auto failed = [&] {
        png_destroy_write_struct(&png, &info);
        file.reset();
        std::remove(part.c_str());
        throw std::runtime_error(path + " cannot be written; free some space or choose another folder");
    };
    if (!info) failed();
    if (setjmp(png_jmpbuf(png))) failed();
    png_init_io(png, file.get());
    png_set_compression_level(png, 3);
    const bool colours = bytes == 1 && !palette.empty();
    png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), 8 * bytes,
                 colours ? PNG_COLOR_TYPE_PALETTE : PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (colours)
        png_set_PLTE(png, info, reinterpret_cast<png_const_colorp>(palette.data()),
                     static_cast<int>(palette.size() / 3));
    png_write_info(png, info);
    if (bytes == 2) png_set_swap(png);
    for (int y = 0; y < height; ++y)
        png_write_row(png, static_cast<const png_byte*>(ids) +
                               static_cast<std::size_t>(y) * static_cast<std::size_t>(width) * bytes);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    if (std::fclose(file.release()) != 0 || std::rename(part.c_str(), path.c_str()) != 0) {
        std::remove(part.c_str());
        throw std::runtime_error(path + " cannot be written; free some space or choose another folder");
    }
#else
    (void)ids, (void)bytes, (void)width, (void)height, (void)palette;
    throw std::runtime_error(path +
                             " cannot be written: ov2vss-cli was built without libpng; build it with, or use --labels");
#endif
}
