/* label BUNDLE WIDTH HEIGHT WORDS < frames.rgb > labels.u8: every pixel's word, from raw RGB frames. */
#include <math.h>
#include <ov2vss/ov2vss.h>
#include <stdio.h>
#include <stdlib.h>

static void check(ov2vss_status status) {
    if (status == OV2VSS_OK) return;
    fprintf(stderr, "label: %s\n", ov2vss_last_error());
    exit(1);
}

int main(int count, char** arguments) {
    if (count != 5) {
        fprintf(stderr, "usage: label BUNDLE WIDTH HEIGHT WORDS < frames.rgb > labels.u8\n");
        return 2;
    }
    ov2vss_engine* engine = NULL;
    ov2vss_vocabulary* words = NULL;
    ov2vss_stream* stream = NULL;
    check(ov2vss_engine_open(arguments[1], NULL, &engine));
    check(ov2vss_vocabulary_from_words(engine, arguments[4], NULL, &words));
    check(ov2vss_stream_create(engine, words, NULL, &stream));

    const int width = atoi(arguments[2]), height = atoi(arguments[3]);
    const size_t pixels = (size_t)width * (size_t)height;
    const size_t bytes = pixels * (size_t)ov2vss_vocabulary_label_bytes(words);
    unsigned char *rgb = malloc(3 * pixels), *labels = malloc(bytes);
    ov2vss_image frame = OV2VSS_IMAGE_INIT;
    frame.width = width;
    frame.height = height;
    frame.planes[0] = rgb;
    ov2vss_result result = {.struct_size = sizeof(result), .labels = labels};
    while (fread(rgb, 3, pixels, stdin) == pixels) {
        check(ov2vss_stream_step(stream, &frame, NAN, &result));
        fwrite(labels, 1, bytes, stdout);
    }
    ov2vss_stream_destroy(stream);
    ov2vss_vocabulary_release(words);
    ov2vss_engine_release(engine);
    free(rgb);
    free(labels);
    return 0;
}
