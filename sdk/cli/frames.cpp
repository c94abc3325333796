#include "frames.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <sstream>
#include <stdexcept>

#include "pictures.h"

namespace {

struct Closer {
    void operator()(std::FILE* file) const {
        if (file != stdin) std::fclose(file);
    }
};
using File = std::unique_ptr<std::FILE, Closer>;

// Fills `bytes`; false where the file ends before the first of them.
bool read_all(std::FILE* file, std::vector<std::uint8_t>& bytes, const std::string& name, std::size_t frame) {
    const std::size_t count = std::fread(bytes.data(), 1, bytes.size(), file);
    if (count == bytes.size()) return true;
    if (count == 0 && !std::ferror(file)) return false;
    throw std::runtime_error(name + " ends within frame " + std::to_string(frame) + " (" + std::to_string(count) +
                             " of " + std::to_string(bytes.size()) + " bytes); check its size");
}

class Raw : public Frames {
public:
    Raw(File file, const SourceOptions& options) : file_(std::move(file)), options_(options) {}

    bool next(Frame& frame) override {
        frame.width = options_.width;
        frame.height = options_.height;
        frame.rgb.resize(3 * static_cast<std::size_t>(frame.width) * static_cast<std::size_t>(frame.height));
        if (!read_all(file_.get(), frame.rgb, options_.source == "-" ? "standard input" : options_.source, count_))
            return false;
        if (options_.bgr)
            for (std::size_t i = 0; i < frame.rgb.size(); i += 3) std::swap(frame.rgb[i], frame.rgb[i + 2]);
        frame.time = static_cast<double>(count_++) * rate_den / rate_num;
        return true;
    }

private:
    File file_;
    SourceOptions options_;
    std::size_t count_ = 0;
};

// YUV4MPEG2 as ffmpeg writes it: 4:2:0, 4:2:2 or 4:4:4 of 8 bits, or grey.
class Y4m : public Frames {
public:
    Y4m(File file, const SourceOptions& options)
        : file_(std::move(file)), name_(options.source == "-" ? "standard input" : options.source) {
        std::istringstream header(line());
        std::string word, colours = "420jpeg";
        header >> word;
        bool full = false;
        while (header >> word) {
            const std::string value = word.substr(1);
            switch (word[0]) {
                case 'W': width_ = std::atoi(value.c_str()); break;
                case 'H': height_ = std::atoi(value.c_str()); break;
                case 'F':
                    if (std::sscanf(value.c_str(), "%d:%d", &rate_num, &rate_den) != 2 || rate_num < 1 || rate_den < 1)
                        throw std::runtime_error(name_ + " has no frame rate; write it with ffmpeg -f yuv4mpegpipe");
                    break;
                case 'C': colours = value; break;
                case 'X':
                    if (value == "COLORRANGE=FULL") full = true;
                    break;
                default: break;
            }
        }
        if (width_ < 1 || height_ < 1 || width_ > 1 << 15 || height_ > 1 << 15)
            throw std::runtime_error(name_ + " has no size; write it with ffmpeg -f yuv4mpegpipe");
        if (colours.rfind("420", 0) == 0 && colours.find('p') != 3) {
            across_ = down_ = 2;
        } else if (colours == "422") {
            across_ = 2;
        } else if (colours == "mono") {
            grey_ = true;
        } else if (colours != "444") {
            throw std::runtime_error(name_ + " has colours " + colours + "; write it with -pix_fmt yuv420p");
        }
        const double kr = options.bt709 ? 0.2126 : 0.299, kb = options.bt709 ? 0.0722 : 0.114, kg = 1 - kr - kb;
        const double luma = full ? 1.0 : 255.0 / 219, chroma = full ? 1.0 : 255.0 / 224;
        auto fixed = [](double value) { return static_cast<int>(std::lround(value * 65536)); };
        y_ = fixed(luma);
        rv_ = fixed(chroma * 2 * (1 - kr));
        bu_ = fixed(chroma * 2 * (1 - kb));
        gu_ = fixed(chroma * 2 * (1 - kb) * kb / kg);
        gv_ = fixed(chroma * 2 * (1 - kr) * kr / kg);
        black_ = full ? 0 : 16;
    }

    bool next(Frame& frame) override {
        const int first = std::fgetc(file_.get());
        if (first == EOF) return false;
        std::ungetc(first, file_.get());
        if (line().rfind("FRAME", 0) != 0)
            throw std::runtime_error(name_ + ": frame " + std::to_string(count_) + " has no head; write it anew");
        const std::size_t wide = static_cast<std::size_t>(width_), high = static_cast<std::size_t>(height_);
        const std::size_t half_wide = (wide + across_ - 1) / across_, half_high = (high + down_ - 1) / down_;
        planes_.resize(wide * high + (grey_ ? 0 : 2 * half_wide * half_high));
        if (!read_all(file_.get(), planes_, name_, count_))
            throw std::runtime_error(name_ + " ends within frame " + std::to_string(count_) + "; check its size");
        frame.width = width_;
        frame.height = height_;
        frame.rgb.resize(3 * wide * high);
        frame.time = static_cast<double>(count_++) * rate_den / rate_num;
        const std::uint8_t *us = planes_.data() + wide * high, *vs = us + half_wide * half_high;
        std::uint8_t* out = frame.rgb.data();
        auto clipped = [](int value) { return static_cast<std::uint8_t>(std::min(std::max(value, 0), 255)); };
        for (std::size_t y = 0; y < high; ++y)
            for (std::size_t x = 0; x < wide; ++x, out += 3) {
                const std::size_t at = y / down_ * half_wide + x / across_;
                const int c = (planes_[y * wide + x] - black_) * y_ + (1 << 15);
                const int u = grey_ ? 0 : us[at] - 128, v = grey_ ? 0 : vs[at] - 128;
                out[0] = clipped((c + rv_ * v) >> 16);
                out[1] = clipped((c - gu_ * u - gv_ * v) >> 16);
                out[2] = clipped((c + bu_ * u) >> 16);
            }
        return true;
    }

private:
    std::string line() {
        std::string found;
        for (int c = std::fgetc(file_.get()); c != '\n'; c = std::fgetc(file_.get())) {
            if (c == EOF || found.size() > 1024)
                throw std::runtime_error(name_ + " is no YUV4MPEG2; write it with ffmpeg -f yuv4mpegpipe");
            found += static_cast<char>(c);
        }
        return found;
    }

    File file_;
    std::string name_;
    int width_ = 0, height_ = 0;
    std::size_t across_ = 1, down_ = 1, count_ = 0;
    bool grey_ = false;
    int y_ = 0, rv_ = 0, gu_ = 0, gv_ = 0, bu_ = 0, black_ = 0;
    std::vector<std::uint8_t> planes_;
};

class Pictures : public Frames {
public:
    explicit Pictures(const std::string& folder) : folder_(folder) {
        DIR* open = opendir(folder.c_str());
        if (!open) throw std::runtime_error("folder " + folder + " cannot be read; check the path");
        while (const dirent* entry = readdir(open)) {
            const std::string name = entry->d_name;
            if (is_picture(name)) names_.push_back(name);
        }
        closedir(open);
        std::sort(names_.begin(), names_.end());
        if (names_.empty())
            throw std::runtime_error("folder " + folder + " holds no pictures; it reads " + picture_kinds());
    }

    bool next(Frame& frame) override {
        if (at_ == names_.size()) return false;
        read_picture(folder_ + "/" + names_[at_], frame.rgb, frame.width, frame.height);
        frame.name = names_[at_].substr(0, names_[at_].rfind('.'));
        frame.time = static_cast<double>(at_++) * rate_den / rate_num;
        return true;
    }

private:
    std::string folder_;
    std::vector<std::string> names_;
    std::size_t at_ = 0;
};

}  // namespace

std::unique_ptr<Frames> open_frames(const SourceOptions& options) {
    std::unique_ptr<Frames> found;
    struct stat kind{};
    if (options.source != "-" && stat(options.source.c_str(), &kind) == 0 && S_ISDIR(kind.st_mode)) {
        found = std::make_unique<Pictures>(options.source);
    } else {
        File file(options.source == "-" ? stdin : std::fopen(options.source.c_str(), "rb"));
        if (!file)
            throw std::runtime_error(options.source + " cannot be read (" + std::strerror(errno) + "); check the path");
        if (options.width) {
            found = std::make_unique<Raw>(std::move(file), options);
        } else {
            const int first = std::fgetc(file.get());
            if (first == EOF)
                throw std::runtime_error((options.source == "-" ? "standard input" : options.source) +
                                         " is empty; send frames");
            std::ungetc(first, file.get());
            if (first != 'Y')
                throw std::runtime_error("raw frames have no size of their own; give --size HxW, or send YUV4MPEG2");
            return std::make_unique<Y4m>(std::move(file), options);
        }
    }
    found->rate_num = options.rate_num;
    found->rate_den = options.rate_den;
    return found;
}
