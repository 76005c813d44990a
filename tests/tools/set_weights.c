/*
 * set_weights FOLDER [NAME ROW COLUMN VALUE]...: change elements of float32 tensors of a model
 * folder in place, one after the other. ROW and COLUMN count from 0, "all" means every one; a
 * vector has one column.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/safetensors.h"

static int set(const struct zinf_safetensors *weights, char **words)
{
    const struct zinf_safetensors_entry *entry = zinf_safetensors_find(weights, words[0]);
    const float value = strtof(words[3], NULL);
    if (!entry || strcmp(entry->dtype, "F32") != 0)
        return -1;
    const long rows = (long)entry->shape[0],
               columns = entry->dim_count > 1 ? (long)entry->shape[1] : 1;
    const long row = strcmp(words[1], "all") ? atol(words[1]) : -1;
    const long column = strcmp(words[2], "all") ? atol(words[2]) : -1;
    const int file = open(weights->files[entry->file], O_WRONLY | O_CLOEXEC);
    int status = file < 0 || row >= rows || column >= columns ? -1 : 0;
    for (long i = 0; i < rows * columns && !status; i++)
        if ((row < 0 || i / columns == row) && (column < 0 || i % columns == column))
            status = pwrite(file, &value, sizeof value, entry->offset + i * (long)sizeof value) !=
                     sizeof value;
    if (file >= 0)
        close(file);
    return status;
}

int main(int argc, char **argv)
{
    struct zinf_safetensors weights;
    struct zinf_error error;
    if (argc < 2 || argc % 4 != 2 || zinf_safetensors_open(&weights, argv[1], &error))
        return 2;
    int status = 0;
    for (int i = 2; i < argc && !status; i += 4) {
        status = set(&weights, argv + i);
        if (status)
            fprintf(stderr, "%s: there is no element %s, %s of it\n", argv[i], argv[i + 1],
                    argv[i + 2]);
    }
    zinf_safetensors_close(&weights);
    return status ? 1 : 0;
}
