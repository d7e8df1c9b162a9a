/* Runs a fuzz target over the files given, without libFuzzer: the corpus and every past crash are a
 * regression test that any C compiler can build. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The input has a block of its own size, so that a sanitizer sees a read one byte past it. */
static int replay(const char *path) {
    FILE *f = fopen(path, "rb");
    uint8_t *data = NULL;
    long size = 0;
    int ok =
        f && fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) >= 0 && fseek(f, 0, SEEK_SET) == 0;
    if (ok)
        data = malloc(size ? (size_t)size : 1);
    ok = data && fread(data, 1, (size_t)size, f) == (size_t)size;
    if (ok)
        LLVMFuzzerTestOneInput(data, (size_t)size);
    else
        perror(path);
    free(data);
    if (f)
        fclose(f);
    return ok;
}

int main(int argc, char **argv) {
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash ? slash + 1 : argv[0];
    LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        /* Before, and flushed: if this input crashes, the last line names it. */
        printf("%s\n", argv[i]);
        fflush(stdout);
        if (!replay(argv[i]))
            return 1;
    }
    printf("ok %s: inputs %d\n", name, argc);
    return 0;
}
