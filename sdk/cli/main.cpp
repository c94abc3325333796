// ov2vss-cli: frames in, labels out; with FFmpeg in front of it, what `ov2vss-run --masks` does.
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <optional>
#include <stdexcept>
#include <utility>
#include <string>
#include <vector>

#include "frames.h"
#include "ov2vss/ov2vss.hpp"
#include "pictures.h"

namespace {

using Clock = std::chrono::steady_clock;

// A command that makes no sense: exit code 2.
struct UsageError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

const char* const kHelp = R"(Usage: ov2vss-cli --bundle DIR [OPTIONS] [SOURCE]

Labels every pixel of every frame of SOURCE: raw RGB or YUV4MPEG2 on standard input (-, the default) or in a file, or a
folder of pictures (%s).

  ffmpeg -v error -i video.mp4 -f yuv4mpegpipe -pix_fmt yuv420p - | ov2vss-cli --bundle DIR --masks masks

Options:
  --bundle DIR             folder of ov2vss-export
  --engine NAME            openvino [default], onnxruntime, or ort; --backend is the same
  --precision P            fp32 [default], bf16, fp16, int8 as the bundle and the engine have them
  --vocab WORDS|FILE       "road; car, automobile", a file, or a list of the bundle [default: the bundle's words]
  --size HxW               size of raw frames; --raw is the same
  --raw-format F           rgb24 [default] or bgr24
  --rate N|N/D             frames a second of raw frames and pictures [default: 25]
  --bt709                  colour matrix of YUV4MPEG2 [default: BT.601]
  --labels FILE            labels, one byte a pixel (two above 254 words): index of the word, 255 (65535) unknown
  --confidence FILE        confidence, one float32 a pixel
  --masks DIR              a PNG a frame with a palette: id = index + 1, unknown 0
  --overlay FILE           coloured frames as YUV4MPEG2; - for standard output
  --alpha A                strength of the colours [default: 0.5]
  --threads N              processor threads [default: physical cores]
  --gap G                  distance of references in frames [default: the bundle's]
  --distant POLICY         first [default] or reservoir; farthest with --last
  --last FILE              picture of the last frame, for --distant farthest (its time with --last-time SECONDS)
  --unknown-below P        pixels of lower confidence are unknown; auto for the bundle's advice
  --background WORDS       words that take part but name nothing
  --synonyms MODE          average or max [default: the bundle's]
  --top-classes N          decode only the most likely words of a shot
  --drop-absent P          leave out words that win nowhere
  --reset-on-cut           start anew where a new shot begins
  --every K                run the network on every K-th frame, hold its labels between
  --frames N               end after so many frames
  --save FILE, --load FILE write the stream's state at the end, go on from it at the beginning
  --modules DIR            folder of the engines' modules
  --runtime FILE           the engine's own library, as libonnxruntime.so.1
  --json                   print the results as one JSON object on the last line
  --version, -h, --help
)";

struct Options {
    std::string bundle, backend = "openvino", precision = "fp32", labels, confidence, masks, overlay, save, load,
                        modules, runtime;
    std::string last, background, synonyms, unknown;
    std::optional<std::string> vocab;
    SourceOptions source;
    double alpha = 0.5, last_time = ov2vss::no_time;
    int threads = 0, every = 1;
    long long frames = -1;
    bool json = false;
    ov2vss::StreamOptions stream;
};

long long number(const std::string& name, const std::string& text, long long lowest, long long highest) {
    char* end = nullptr;
    errno = 0;
    const long long value = std::strtoll(text.c_str(), &end, 10);
    if (text.empty() || *end || errno || value < lowest || value > highest)
        throw UsageError(name + " " + text + ": give a number from " + std::to_string(lowest) + " to " +
                         std::to_string(highest));
    return value;
}

double share(const std::string& name, const std::string& text) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || *end || !(value >= 0 && value <= 1))
        throw UsageError(name + " " + text + ": give a number from 0 to 1");
    return value;
}

Options parsed(int count, char** words) {
    Options o;
    bool source = false;
    const std::vector<std::string> all(words + 1, words + count);
    for (std::size_t at = 0; at < all.size(); ++at) {
        std::string name = all[at];
        std::optional<std::string> attached;
        const std::size_t equals = name.find('=');
        if (name.rfind("--", 0) == 0 && equals != std::string::npos) {
            attached = name.substr(equals + 1);
            name.resize(equals);
        }
        auto value = [&]() -> std::string {
            if (attached) return *attached;
            if (at + 1 >= all.size()) throw UsageError(name + " needs a value; see ov2vss-cli --help");
            return all[++at];
        };
        if (name == "--help" || name == "-h") {
            std::printf(kHelp, picture_kinds().c_str());
            std::exit(0);
        } else if (name == "--version") {
            std::printf("ov2vss-cli %s\n", ov2vss_version());
            std::exit(0);
        } else if (name == "--bundle") {
            o.bundle = value();
        } else if (name == "--engine" || name == "--backend") {
            o.backend = value();
            if (o.backend == "ort") o.backend = "onnxruntime";
            if (o.backend.rfind("ort:", 0) == 0) o.backend = "onnxruntime" + o.backend.substr(3);
        } else if (name == "--precision") {
            o.precision = value();
        } else if (name == "--vocab") {
            o.vocab = value();
        } else if (name == "--size" || name == "--raw") {
            const std::string text = value();
            char rest = 0;
            if (std::sscanf(text.c_str(), "%5dx%5d%c", &o.source.height, &o.source.width, &rest) != 2 ||
                o.source.height < 1 || o.source.width < 1 || o.source.height > 1 << 15 || o.source.width > 1 << 15)
                throw UsageError("size '" + text + "' is not HEIGHTxWIDTH; write it like 720x1280");
        } else if (name == "--raw-format") {
            const std::string text = value();
            if (text != "rgb24" && text != "bgr24") throw UsageError("--raw-format " + text + ": use rgb24 or bgr24");
            o.source.bgr = text == "bgr24";
        } else if (name == "--rate") {
            const std::string text = value();
            const std::size_t slash = text.find('/');
            o.source.rate_num = static_cast<int>(number(name, text.substr(0, slash), 1, 1'000'000));
            o.source.rate_den =
                slash == std::string::npos ? 1 : static_cast<int>(number(name, text.substr(slash + 1), 1, 1'000'000));
        } else if (name == "--bt709") {
            o.source.bt709 = true;
        } else if (name == "--labels") {
            o.labels = value();
        } else if (name == "--confidence") {
            o.confidence = value();
            o.stream.confidence = 1;
        } else if (name == "--masks") {
            o.masks = value();
        } else if (name == "--overlay") {
            o.overlay = value();
        } else if (name == "--alpha") {
            o.alpha = share(name, value());
        } else if (name == "--threads") {
            o.threads = static_cast<int>(number(name, value(), 1, 1024));
        } else if (name == "--gap") {
            o.stream.gap = static_cast<int>(number(name, value(), 1, 10'000));
        } else if (name == "--distant") {
            const std::string text = value();
            if (text == "first")
                o.stream.distant = OV2VSS_DISTANT_FIRST;
            else if (text == "farthest")
                o.stream.distant = OV2VSS_DISTANT_FARTHEST;
            else if (text == "reservoir")
                o.stream.distant = OV2VSS_DISTANT_RESERVOIR;
            else
                throw UsageError("--distant " + text + ": use first, farthest or reservoir");
        } else if (name == "--last") {
            o.last = value();
        } else if (name == "--last-time") {
            const std::string text = value();
            char* end = nullptr;
            o.last_time = std::strtod(text.c_str(), &end);
            if (text.empty() || *end) throw UsageError("--last-time " + text + ": give seconds");
        } else if (name == "--unknown-below") {
            o.unknown = value();
            if (o.unknown != "auto") o.stream.unknown_below = static_cast<float>(share(name, o.unknown));
        } else if (name == "--background") {
            o.background = value();
        } else if (name == "--synonyms") {
            o.synonyms = value();
            if (o.synonyms != "average" && o.synonyms != "max")
                throw UsageError("--synonyms " + o.synonyms + ": use average or max");
        } else if (name == "--top-classes") {
            o.stream.top_classes = static_cast<int>(number(name, value(), 0, 65'534));
        } else if (name == "--drop-absent") {
            o.stream.drop_absent = static_cast<float>(share(name, value()));
        } else if (name == "--reset-on-cut") {
            o.stream.reset_on_cut = 1;
        } else if (name == "--every") {
            o.every = static_cast<int>(number(name, value(), 1, 10'000));
        } else if (name == "--frames") {
            o.frames = number(name, value(), 1, 1LL << 40);
        } else if (name == "--save") {
            o.save = value();
        } else if (name == "--load") {
            o.load = value();
        } else if (name == "--modules") {
            o.modules = value();
        } else if (name == "--runtime") {
            o.runtime = value();
        } else if (name == "--json") {
            o.json = true;
        } else if (name.size() > 1 && name[0] == '-') {
            throw UsageError("there is no option " + name + "; see ov2vss-cli --help");
        } else if (source) {
            throw UsageError("'" + name + "' is a second source; give one");
        } else {
            o.source.source = name;
            source = true;
        }
    }
    if (o.bundle.empty()) throw UsageError("no bundle; give --bundle DIR, a folder of ov2vss-export");
    if (o.stream.distant == OV2VSS_DISTANT_FARTHEST && o.last.empty())
        throw UsageError("--distant farthest needs the last frame; give it with --last FILE, or use first");
    if (!o.masks.empty() && !can_write_png())
        throw UsageError("--masks: this ov2vss-cli was built without libpng; use --labels");
    return o;
}

// A file that is complete under its own name or not there: written as FILE.part. "-" is standard output.
class Output {
public:
    explicit Output(const std::string& path) : path_(path) {
        if (path.empty()) return;
        part_ = path == "-" ? "" : path + ".part";
        file_ = path == "-" ? stdout : std::fopen(part_.c_str(), "wb");
        if (!file_)
            throw std::runtime_error(part_ + " cannot be written (" + std::strerror(errno) + "); choose another place");
    }
    Output(const Output&) = delete;
    Output& operator=(const Output&) = delete;
    ~Output() {
        if (file_ && file_ != stdout) std::fclose(file_);  // what is there of it stays, as a part
    }
    bool wanted() const { return file_ != nullptr; }
    void write(const void* data, std::size_t size) {
        if (std::fwrite(data, 1, size, file_) != size)
            throw std::runtime_error(path_ + " cannot be written (" + std::strerror(errno) + "); free some space");
    }
    void finish() {
        if (!file_) return;
        std::FILE* file = std::exchange(file_, nullptr);
        if (file == stdout ? std::fflush(file) != 0
                           : std::fclose(file) != 0 || std::rename(part_.c_str(), path_.c_str()) != 0)
            throw std::runtime_error(path_ + " cannot be written (" + std::strerror(errno) + "); free some space");
    }

private:
    std::string path_, part_;
    std::FILE* file_ = nullptr;
};

// The Python runtime's colours: twenty chosen by hand, then hues by the golden ratio.
std::vector<std::uint8_t> colours(std::size_t classes) {
    static const std::uint8_t base[20][3] = {{70, 130, 180}, {150, 90, 60},   {240, 200, 60},  {128, 64, 128},
                                             {240, 60, 200}, {90, 160, 50},   {230, 80, 30},   {110, 110, 230},
                                             {40, 70, 220},  {220, 20, 60},   {0, 190, 190},   {250, 170, 120},
                                             {0, 110, 90},   {190, 220, 130}, {120, 0, 40},    {255, 255, 255},
                                             {90, 60, 150},  {160, 160, 160}, {255, 120, 160}, {60, 60, 20}};
    std::vector<std::uint8_t> found;
    for (std::size_t index = 0; index < classes; ++index) {
        if (index < 20) {
            found.insert(found.end(), base[index], base[index] + 3);
            continue;
        }
        const double hue = std::fmod(static_cast<double>(index) * 0.61803398875, 1.0);
        const std::size_t ring = index / 7 % 3;
        const double s = std::array<double, 3>{0.85, 0.55, 0.7}[ring], v = std::array<double, 3>{0.95, 0.8, 0.6}[ring];
        const int sector = static_cast<int>(hue * 6.0);
        const double f = hue * 6.0 - sector, p = v * (1.0 - s), q = v * (1.0 - s * f), t = v * (1.0 - s * (1.0 - f));
        const double rgb[6][3] = {{v, t, p}, {q, v, p}, {p, v, t}, {p, q, v}, {t, p, v}, {v, p, q}};
        for (const double part : rgb[sector % 6]) found.push_back(static_cast<std::uint8_t>(std::lrint(255 * part)));
    }
    return found;
}

std::string quoted(const std::string& text) {
    std::string found = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') found += '\\';
        if (static_cast<unsigned char>(c) >= 0x20) found += c;
    }
    return found + "\"";
}

std::vector<std::uint8_t> content_of(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "rb");
    if (!file) throw std::runtime_error(path + " cannot be read (" + std::strerror(errno) + "); check the path");
    std::vector<std::uint8_t> bytes;
    std::array<std::uint8_t, 65536> block;
    for (std::size_t count; (count = std::fread(block.data(), 1, block.size(), file)) > 0;)
        bytes.insert(bytes.end(), block.data(), block.data() + count);
    std::fclose(file);
    return bytes;
}

// A frame with coloured labels as YUV 4:4:4 of BT.601.
void draw(const Frame& frame, const std::uint16_t* labels, const std::vector<std::uint8_t>& palette, double alpha,
          std::vector<std::uint8_t>& planes) {
    const std::size_t pixels = static_cast<std::size_t>(frame.width) * static_cast<std::size_t>(frame.height);
    planes.resize(3 * pixels);
    for (std::size_t i = 0; i < pixels; ++i) {
        double rgb[3];
        const bool known = 3u * labels[i] < palette.size();
        for (std::size_t c = 0; c < 3; ++c)
            rgb[c] =
                known ? (1 - alpha) * frame.rgb[3 * i + c] + alpha * palette[3u * labels[i] + c] : frame.rgb[3 * i + c];
        const double y = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2];
        planes[i] = static_cast<std::uint8_t>(std::lrint(16 + y * 219 / 255));
        planes[pixels + i] = static_cast<std::uint8_t>(std::lrint(128 + (rgb[2] - y) / 1.772 * 224 / 255));
        planes[2 * pixels + i] = static_cast<std::uint8_t>(std::lrint(128 + (rgb[0] - y) / 1.402 * 224 / 255));
    }
}

void make_folders(const std::string& path) {
    for (std::size_t at = 1; at <= path.size(); ++at)
        if (at == path.size() || path[at] == '/') mkdir(path.substr(0, at).c_str(), 0777);
    struct stat found{};
    if (stat(path.c_str(), &found) != 0 || !S_ISDIR(found.st_mode))
        throw std::runtime_error(path + " cannot be made; choose another folder");
}

void run(Options& o) {
    const auto began = Clock::now();
    const auto source = open_frames(o.source);
    ov2vss::EngineOptions wanted;
    wanted.backend = o.backend.c_str();
    wanted.precision = o.precision.c_str();
    wanted.threads = o.threads;
    if (!o.modules.empty()) wanted.modules = o.modules.c_str();
    if (!o.runtime.empty()) wanted.runtime = o.runtime.c_str();
    const ov2vss::Engine engine(o.bundle, wanted);
    const ov2vss_engine_info info = engine.info();
    ov2vss::VocabularyOptions how;
    how.synonyms = o.synonyms == "max"       ? OV2VSS_SYNONYMS_MAX
                   : o.synonyms == "average" ? OV2VSS_SYNONYMS_AVERAGE
                                             : OV2VSS_SYNONYMS_BUNDLE;
    if (!o.background.empty()) how.background = o.background.c_str();
    struct stat kind{};
    const bool file = o.vocab && stat(o.vocab->c_str(), &kind) == 0 && S_ISREG(kind.st_mode);
    const ov2vss::Vocabulary words = !o.vocab ? engine.words(how)
                                     : file   ? engine.words_of_file(*o.vocab, how)
                                              : engine.words(*o.vocab, how);
    if (o.unknown == "auto") o.stream.unknown_below = info.unknown_below;
    ov2vss::Stream stream(engine, words, o.stream);
    if (!o.load.empty()) stream.load(content_of(o.load));
    if (!o.last.empty()) {
        Frame last;
        read_picture(o.last, last.rgb, last.width, last.height);
        stream.set_last(ov2vss::rgb(last.rgb.data(), last.width, last.height), o.last_time);
    }
    if (!o.masks.empty()) make_folders(o.masks);
    Output labels(o.labels), confidence(o.confidence), overlay(o.overlay);
    const std::size_t bytes = static_cast<std::size_t>(words.label_bytes());
    const std::vector<std::uint8_t> palette = colours(words.size());
    std::vector<std::uint8_t> mask_palette(3, 0);
    mask_palette.insert(mask_palette.end(), palette.begin(),
                        palette.begin() + static_cast<std::ptrdiff_t>(3 * std::min<std::size_t>(words.size(), 254)));
    std::vector<std::uint8_t> found, planes, ids;
    std::vector<std::uint16_t> wide;
    std::vector<float> sure;
    std::vector<long long> areas(words.size() + 1, 0);
    Frame frame;
    ov2vss::Result result;
    long long frames = 0;
    double first_seconds = 0, busy = 0;
    int held_width = 0, held_height = 0, since = 0;
    while (frames != o.frames && source->next(frame)) {
        const std::size_t pixels = static_cast<std::size_t>(frame.width) * static_cast<std::size_t>(frame.height);
        found.resize(pixels * bytes);
        if (confidence.wanted()) sure.resize(pixels);
        result.labels = found.data();
        result.confidence = confidence.wanted() ? sure.data() : nullptr;
        const auto start = Clock::now();
        if (since > 0 && frame.width == held_width && frame.height == held_height) {
            stream.hold(frame.time, result);
        } else {
            stream.step(ov2vss::rgb(frame.rgb.data(), frame.width, frame.height), frame.time, result);
            held_width = frame.width;
            held_height = frame.height;
            since = 0;
        }
        since = (since + 1) % o.every;
        busy += std::chrono::duration<double>(Clock::now() - start).count();
        if (frames == 0) first_seconds = std::chrono::duration<double>(Clock::now() - began).count();
        wide.resize(pixels);
        for (std::size_t i = 0; i < pixels; ++i) {
            wide[i] = bytes == 1 ? found[i] : reinterpret_cast<const std::uint16_t*>(found.data())[i];
            ++areas[std::min<std::size_t>(wide[i], words.size())];
        }
        if (labels.wanted()) labels.write(found.data(), found.size());
        if (confidence.wanted()) confidence.write(sure.data(), sure.size() * sizeof(float));
        if (!o.masks.empty()) {
            ids.resize(pixels * bytes);
            for (std::size_t i = 0; i < pixels; ++i) {
                const std::size_t id = wide[i] < words.size() ? wide[i] + 1u : 0u;
                if (bytes == 1)
                    ids[i] = static_cast<std::uint8_t>(id);
                else
                    reinterpret_cast<std::uint16_t*>(ids.data())[i] = static_cast<std::uint16_t>(id);
            }
            char name[32];
            std::snprintf(name, sizeof(name), "%06lld", frames);
            write_png(o.masks + "/" + (frame.name.empty() ? name : frame.name) + ".png", ids.data(),
                      static_cast<int>(bytes), frame.width, frame.height, mask_palette);
        }
        if (overlay.wanted()) {
            draw(frame, wide.data(), palette, o.alpha, planes);
            if (frames == 0) {
                const std::string head = "YUV4MPEG2 W" + std::to_string(frame.width) + " H" +
                                         std::to_string(frame.height) + " F" + std::to_string(source->rate_num) + ":" +
                                         std::to_string(source->rate_den) + " Ip A1:1 C444\n";
                overlay.write(head.data(), head.size());
            }
            overlay.write("FRAME\n", 6);
            overlay.write(planes.data(), planes.size());
        }
        ++frames;
    }
    if (!frames)
        throw std::runtime_error("there are no frames in " +
                                 (o.source.source == "-" ? "standard input" : o.source.source) + "; check the source");
    labels.finish();
    confidence.finish();
    overlay.finish();
    if (!o.save.empty()) {
        const auto state = stream.save();
        Output saved(o.save);
        saved.write(state.data(), state.size());
        saved.finish();
    }
    if (!o.json) return;
    const double seconds = std::chrono::duration<double>(Clock::now() - began).count();
    struct rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    std::string areas_text;
    for (std::size_t i = 0; i < words.size(); ++i)
        areas_text += (i ? ", " : "") + quoted(words.name(i)) + ": " + std::to_string(areas[i]);
    std::FILE* out = o.overlay == "-" ? stderr : stdout;
    std::fprintf(
        out,
        "{\"frames\": %lld, \"seconds\": %.6f, \"fps\": %.3f, \"first_labels_seconds\": %.6f, \"step_ms\": %.4f, "
        "\"peak_memory_mib\": %.1f, \"size\": [%d, %d], \"engine\": %s, \"precision\": %s, \"threads\": %d, "
        "\"pixels\": {%s}, "
        "\"unknown\": %lld}\n",
        frames, seconds, static_cast<double>(frames) / seconds, first_seconds,
        1000 * busy / static_cast<double>(frames), static_cast<double>(usage.ru_maxrss) / 1024, frame.height,
        frame.width, quoted(info.runtime).c_str(), quoted(info.precision).c_str(), info.threads, areas_text.c_str(),
        areas.back());
}

}  // namespace

int main(int count, char** words) {
    try {
        Options options = parsed(count, words);
        ov2vss_set_log(
            [](ov2vss_log_level, const char* message, void*) { std::fprintf(stderr, "ov2vss-cli: %s\n", message); },
            nullptr);
        run(options);
        return 0;
    } catch (const UsageError& error) {
        std::fprintf(stderr, "ov2vss-cli: %s\n", error.what());
        return 2;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "ov2vss-cli: %s\n", error.what());
        return 1;
    }
}
