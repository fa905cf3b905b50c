/* Machine code is an ELF file; a kernel NAME is the section .text.NAME, and .nv.info* say what it takes. */

#include "cubin.h"

#include <elf.h>
#include <stdio.h>
#include <string.h>

/* Of an item in .nv.info: its form, and which fact it is. */
enum { SIZED = 4 };
enum { MAX_THREADS = 0x05, PARAMETER = 0x17, REGISTER_COUNT = 0x2f };

static const Elf64_Shdr *sections(const void *image) {
    const Elf64_Ehdr *header = image;
    return (const void *)((const char *)image + header->e_shoff);
}

size_t cubin_size(const void *image) {
    const Elf64_Ehdr *header = image;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) || header->e_ident[EI_CLASS] != ELFCLASS64)
        return 0;
    size_t end = header->e_shoff + header->e_shnum * sizeof(Elf64_Shdr);
    for (int i = 0; i < header->e_shnum; i++) {
        const Elf64_Shdr *section = &sections(image)[i];
        if (section->sh_type != SHT_NOBITS && section->sh_offset + section->sh_size > end)
            end = section->sh_offset + section->sh_size;
    }
    return end;
}

static const Elf64_Shdr *section_of(const void *image, const char *kind, const char *name) {
    const Elf64_Ehdr *header = image;
    const char *names = (const char *)image + sections(image)[header->e_shstrndx].sh_offset;
    char wanted[4096];
    snprintf(wanted, sizeof wanted, "%s%s", kind, name);
    for (int i = 0; i < header->e_shnum; i++)
        if (!strcmp(names + sections(image)[i].sh_name, wanted))
            return &sections(image)[i];
    return NULL;
}

static uint32_t word(const uint8_t *at) {
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* One item: `size` bytes at `data`. */
static void take(Description *found, uint8_t which, const uint8_t *data, uint32_t symbol) {
    if (which == REGISTER_COUNT && word(data) == symbol)
        found->registers = word(data + 4);
    else if (which == MAX_THREADS)
        found->threads = word(data) * word(data + 4) * word(data + 8);
    else if (which == PARAMETER) {
        unsigned ordinal = word(data + 4) & 0xffff;
        if (ordinal < MAX_PARAMETERS) {
            found->parameter[ordinal].offset = word(data + 4) >> 16;
            found->parameter[ordinal].size = word(data + 8) >> 18;
            if (ordinal >= found->parameters)
                found->parameters = ordinal + 1;
        }
    }
}

static void read_info(const void *image, const Elf64_Shdr *section, Description *found, uint32_t symbol) {
    const uint8_t *at = (const uint8_t *)image + section->sh_offset, *end = at + section->sh_size;
    while (at + 4 <= end) {
        unsigned size = at[0] == SIZED ? at[2] | at[3] << 8 : 0;
        if (at[0] == SIZED)
            take(found, at[1], at + 4, symbol);
        at += 4 + size;
    }
}

int describe_kernel(const void *image, const char *name, Description *found) {
    memset(found, 0, sizeof *found);
    const Elf64_Shdr *code = section_of(image, ".text.", name), *own = section_of(image, ".nv.info.", name);
    const Elf64_Shdr *common = section_of(image, ".nv.info", ""), *shared = section_of(image, ".nv.shared.", name);
    if (!code || !own || !common)
        return 0;
    read_info(image, common, found, code->sh_info & 0xffffff); /* sh_info: the kernel's symbol */
    read_info(image, own, found, code->sh_info & 0xffffff);
    found->static_shared = shared ? shared->sh_size : 0;
    return found->registers > 0;
}
