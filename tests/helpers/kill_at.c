/* Copyright (c) mmfakd contributors. Licensed under Apache-2.0.

Ends a process by SIGKILL at its n-th file operation within a folder.

    gcc -shared -fPIC -O2 kill_at.c -o kill_at.so -ldl
    KILL_AT_FOLDER=/runs/a KILL_AT=17 LD_PRELOAD=./kill_at.so python train.py ...

KILL_AT_FOLDER   real path of the folder; without it nothing is counted
KILL_AT          number of the operation, from 1; 0 or absent: none, all are counted
KILL_AT_LOG      file that gets a line for each operation: number, name, path, bytes
KILL_AT_RANK     count only where the variable RANK of the process has this value

Counted is what changes the folder: opening for writing, writing, flushing, closing
what was open for writing, renaming, removing, linking, making folders, truncating. A
writing operation is carried out for the first half of its bytes, any other not at all.
Operations that the C library makes within itself (fwrite of a FILE) are not seen;
Python and torch make none. Forked children are not counted: data workers write nothing.

A program that forks its trainings calls kill_at(folder, n, log) in each instead. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX], log_path[PATH_MAX];
static long victim, count;
static pid_t counted;

void kill_at(const char *where, long n, const char *log) {
  snprintf(folder, sizeof folder, "%s", where);
  snprintf(log_path, sizeof log_path, "%s", log ? log : "");
  victim = n;
  count = 0;
  counted = getpid();
}

__attribute__((constructor)) static void start(void) {
  const char *where = getenv("KILL_AT_FOLDER"), *n = getenv("KILL_AT");
  const char *wanted = getenv("KILL_AT_RANK"), *rank = getenv("RANK");
  if (where && (!wanted || (rank && !strcmp(rank, wanted))))
    kill_at(where, n ? atol(n) : 0, getenv("KILL_AT_LOG"));
}

static void end(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static int within(const char *path) {
  size_t length = strlen(folder);
  return !strncmp(path, folder, length) && (!path[length] || path[length] == '/');
}

/* Count an operation on a path; whether it is the one to end at. */
static int is_last(const char *name, const char *path, long bytes) {
  if (counted != getpid() || !within(path)) return 0;
  long number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
  if (*log_path) {
    char line[PATH_MAX + 64];
    int size = snprintf(line, sizeof line, "%ld %s %s %ld\n", number, name, path, bytes);
    int file = syscall(SYS_openat, AT_FDCWD, log_path,
                       O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file < 0 || syscall(SYS_write, file, line, size) != size) abort();
    syscall(SYS_close, file);
  }
  return number == victim;
}

static void of_path(const char *name, int at, const char *path) {
  char full[2 * PATH_MAX], base[PATH_MAX], link[64];
  if (counted != getpid() || !path) return;
  if (*path == '/') {
    snprintf(full, sizeof full, "%s", path);
  } else {
    snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    if (at == AT_FDCWD) strcpy(link, "/proc/self/cwd");
    ssize_t size = readlink(link, base, sizeof base - 1);
    if (size < 0) return;
    base[size] = 0;
    snprintf(full, sizeof full, "%s/%s", base, path);
  }
  if (is_last(name, full, 0)) end();
}

/* Path of a file that is open for writing or, for a folder, to be flushed. */
static int path_of(int file, char *path) {
  char link[64];
  if (counted != getpid()) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = readlink(link, path, PATH_MAX - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return within(path);
}

static int writable(int file) {
  int saved = errno, flags = fcntl(file, F_GETFL);
  errno = saved;
  return flags >= 0 && (flags & O_ACCMODE) != O_RDONLY;
}

static void of_file(const char *name, int file) {
  char path[PATH_MAX];
  int saved = errno;
  if (path_of(file, path) && is_last(name, path, 0)) end();
  errno = saved;
}

/* Whether the first half of this writing is the last thing that the process does. */
static int torn(const char *name, int file, long bytes) {
  char path[PATH_MAX];
  int saved = errno, last = path_of(file, path) && is_last(name, path, bytes);
  errno = saved;
  return last;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define OPEN(name)                                          \
  int name(const char *path, int flags, ...) {              \
    va_list list;                                           \
    va_start(list, flags);                                  \
    mode_t mode = va_arg(list, mode_t);                     \
    va_end(list);                                           \
    if (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))    \
      of_path("open", AT_FDCWD, path);                      \
    return REAL(name)(path, flags, mode);                   \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                        \
  int name(int at, const char *path, int flags, ...) {      \
    va_list list;                                           \
    va_start(list, flags);                                  \
    mode_t mode = va_arg(list, mode_t);                     \
    va_end(list);                                           \
    if (flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))    \
      of_path("open", at, path);                            \
    return REAL(name)(at, path, flags, mode);               \
  }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                         \
  FILE *name(const char *path, const char *mode) {          \
    if (strpbrk(mode, "wa+")) of_path("open", AT_FDCWD, path); \
    return REAL(name)(path, mode);                          \
  }
FOPEN(fopen)
FOPEN(fopen64)

#define CREAT(name)                                         \
  int name(const char *path, mode_t mode) {                 \
    of_path("open", AT_FDCWD, path);                        \
    return REAL(name)(path, mode);                          \
  }
CREAT(creat)
CREAT(creat64)

ssize_t write(int file, const void *bytes, size_t size) {
  if (torn("write", file, size)) {
    REAL(write)(file, bytes, size / 2);
    end();
  }
  return REAL(write)(file, bytes, size);
}

#define PWRITE(name, type)                                              \
  ssize_t name(int file, const void *bytes, size_t size, type offset) { \
    if (torn("write", file, size)) {                                    \
      REAL(name)(file, bytes, size / 2, offset);                        \
      end();                                                            \
    }                                                                   \
    return REAL(name)(file, bytes, size, offset);                       \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int file, const struct iovec *parts, int number) {
  long size = 0;
  for (int i = 0; i < number; i++) size += parts[i].iov_len;
  if (torn("write", file, size)) {
    REAL(writev)(file, parts, number / 2);
    end();
  }
  return REAL(writev)(file, parts, number);
}

#define SENDFILE(name, type)                                            \
  ssize_t name(int to, int from, type *offset, size_t size) {           \
    if (torn("write", to, size)) {                                      \
      REAL(name)(to, from, offset, size / 2);                           \
      end();                                                            \
    }                                                                   \
    return REAL(name)(to, from, offset, size);                          \
  }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int from, off64_t *start, int to, off64_t *offset, size_t size,
                        unsigned flags) {
  if (torn("write", to, size)) {
    REAL(copy_file_range)(from, start, to, offset, size / 2, flags);
    end();
  }
  return REAL(copy_file_range)(from, start, to, offset, size, flags);
}

int close(int file) {
  if (writable(file)) of_file("close", file);
  return REAL(close)(file);
}
int fsync(int file) {
  of_file("fsync", file);
  return REAL(fsync)(file);
}
int fdatasync(int file) {
  of_file("fsync", file);
  return REAL(fdatasync)(file);
}

#define FTRUNCATE(name, type)                               \
  int name(int file, type size) {                           \
    of_file("truncate", file);                              \
    return REAL(name)(file, size);                          \
  }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

#define TRUNCATE(name, type)                                \
  int name(const char *path, type size) {                   \
    of_path("truncate", AT_FDCWD, path);                    \
    return REAL(name)(path, size);                          \
  }
TRUNCATE(truncate, off_t)
TRUNCATE(truncate64, off64_t)

/* What is renamed, counted by its new name. */
int rename(const char *from, const char *to) {
  of_path("rename", AT_FDCWD, to);
  return REAL(rename)(from, to);
}
int renameat(int from_at, const char *from, int to_at, const char *to) {
  of_path("rename", to_at, to);
  return REAL(renameat)(from_at, from, to_at, to);
}
int renameat2(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
  of_path("rename", to_at, to);
  return REAL(renameat2)(from_at, from, to_at, to, flags);
}
int link(const char *from, const char *to) {
  of_path("link", AT_FDCWD, to);
  return REAL(link)(from, to);
}
int symlink(const char *from, const char *to) {
  of_path("link", AT_FDCWD, to);
  return REAL(symlink)(from, to);
}
int unlink(const char *path) {
  of_path("unlink", AT_FDCWD, path);
  return REAL(unlink)(path);
}
int unlinkat(int at, const char *path, int flags) {
  of_path("unlink", at, path);
  return REAL(unlinkat)(at, path, flags);
}
int remove(const char *path) {
  of_path("unlink", AT_FDCWD, path);
  return REAL(remove)(path);
}
int rmdir(const char *path) {
  of_path("rmdir", AT_FDCWD, path);
  return REAL(rmdir)(path);
}
int mkdir(const char *path, mode_t mode) {
  of_path("mkdir", AT_FDCWD, path);
  return REAL(mkdir)(path, mode);
}
int mkdirat(int at, const char *path, mode_t mode) {
  of_path("mkdir", at, path);
  return REAL(mkdirat)(at, path, mode);
}
