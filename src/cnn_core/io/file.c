/* Reading a file, and replacing one in one go. */
#if !defined(_WIN32)
#define _POSIX_C_SOURCE 200809L /* fileno, fsync */
#endif

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "io/format.h"

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <io.h>
#include <windows.h>
#else
#include <unistd.h>
#endif

static cnn_status fail(const char *what, const char *path)
{
    return cnn_fail(CNN_IO_ERROR, "%s: cannot %s it: %s", path, what, strerror(errno));
}

/* ---- what the platforms differ in ----------------------------------------------------------------------------------- */

#if defined(_WIN32)

#define WIDE_PATH 4096

static bool widen(const char *path, wchar_t wide[WIDE_PATH])
{
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, -1, wide, WIDE_PATH) > 0) return true;
    errno = ENOENT;
    return false;
}

static FILE *open_file(const char *path, const char *mode)
{
    wchar_t wide[WIDE_PATH], wide_mode[8];
    return widen(path, wide) && widen(mode, wide_mode) ? _wfopen(wide, wide_mode) : NULL;
}

static bool replace_file(const char *from, const char *to)
{
    wchar_t wide_from[WIDE_PATH], wide_to[WIDE_PATH];
    if (!widen(from, wide_from) || !widen(to, wide_to)) return false;
    if (MoveFileExW(wide_from, wide_to, MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH)) return true;
    errno = EACCES;
    return false;
}

static void remove_file(const char *path)
{
    wchar_t wide[WIDE_PATH];
    if (widen(path, wide)) (void)_wremove(wide);
}

static bool store_file(FILE *stream) { return fflush(stream) == 0 && _commit(_fileno(stream)) == 0; }

#else

static FILE *open_file(const char *path, const char *mode) { return fopen(path, mode); }

static bool replace_file(const char *from, const char *to) { return rename(from, to) == 0; }

static void remove_file(const char *path) { (void)remove(path); }

static bool store_file(FILE *stream) { return fflush(stream) == 0 && fsync(fileno(stream)) == 0; }

#endif

/* ---- reading ------------------------------------------------------------------------------------------------------- */

#define FIRST_BYTES ((size_t)1 << 16)

/* A byte more than the file seems to have, to see its end; or, where that is not known, some. */
static size_t first_room(FILE *stream)
{
    const long length = fseek(stream, 0, SEEK_END) == 0 ? ftell(stream) : -1;
    rewind(stream);
    return length > 0 && length < LONG_MAX ? (size_t)length + 1 : FIRST_BYTES;
}

/* The memory grows if more arrives than was announced. */
static cnn_status read_all(const cnn_allocator *allocator, FILE *stream, const char *path, char **bytes, size_t *size)
{
    size_t room = first_room(stream);
    *bytes = cnn_allocate(allocator, room);
    while (*bytes != NULL) {
        *size += fread(*bytes + *size, 1, room - *size, stream);
        if (*size < room) return ferror(stream) ? fail("read", path) : CNN_OK;
        room = cnn_size_mul(room, 2);
        char *moved = cnn_allocate(allocator, room);
        if (moved != NULL) memcpy(moved, *bytes, *size);
        cnn_release(allocator, *bytes);
        *bytes = moved;
    }
    return cnn_fail(CNN_OUT_OF_MEMORY, "%s: no memory for %zu bytes of it", path, room);
}

cnn_status cnn_file_read(const cnn_allocator *allocator, const char *path, char **bytes, size_t *size)
{
    *bytes = NULL;
    *size = 0;
    FILE *stream = open_file(path, "rb");
    if (stream == NULL) return fail("open", path);
    const cnn_status status = read_all(allocator, stream, path, bytes, size);
    (void)fclose(stream);
    if (status == CNN_OK) return CNN_OK;
    cnn_release(allocator, *bytes);
    *bytes = NULL;
    return status;
}

/* ---- writing ------------------------------------------------------------------------------------------------------- */

#define MOST_ATTEMPTS 100

cnn_status cnn_file_begin(const cnn_allocator *allocator, const char *path, cnn_new_file *file)
{
    const size_t room = strlen(path) + 16;
    *file = (cnn_new_file){.allocator = allocator, .path = path, .temporary = cnn_allocate(allocator, room)};
    if (file->temporary == NULL) return cnn_fail(CNN_OUT_OF_MEMORY, "no memory for a name");
    for (int attempt = 0; attempt < MOST_ATTEMPTS && file->stream == NULL; attempt++) {
        (void)snprintf(file->temporary, room, "%s.tmp%d", path, attempt);
        file->stream = open_file(file->temporary, "wbx"); /* x: not one that somebody else is writing */
        if (file->stream == NULL && errno != EEXIST) break;
    }
    return file->stream == NULL ? fail("write", path) : CNN_OK;
}

cnn_status cnn_file_write(const cnn_new_file *file, const void *bytes, size_t count)
{
    return count == 0 || fwrite(bytes, 1, count, file->stream) == count ? CNN_OK : fail("write", file->path);
}

cnn_status cnn_file_patch(const cnn_new_file *file, long offset, const void *bytes, size_t count)
{
    return fseek(file->stream, offset, SEEK_SET) == 0 ? cnn_file_write(file, bytes, count) : fail("write", file->path);
}

cnn_status cnn_file_end(cnn_new_file *file, cnn_status status)
{
    if (file->stream != NULL) {
        if (status == CNN_OK && !store_file(file->stream)) status = fail("write", file->path);
        if (fclose(file->stream) != 0 && status == CNN_OK) status = fail("write", file->path);
        if (status == CNN_OK && !replace_file(file->temporary, file->path)) status = fail("replace", file->path);
        if (status != CNN_OK) remove_file(file->temporary);
    }
    cnn_release(file->allocator, file->temporary);
    return status;
}
