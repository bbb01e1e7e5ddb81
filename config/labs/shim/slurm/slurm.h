/* Stands before Slurm 26.05's slurm.h, so that pyslurm 25.11 compiles and runs against it unmodified. */
#ifndef KEZEK_SLURM_H
#define KEZEK_SLURM_H
/* 26.05 turned job ids into a struct; this keeps the wrappers that take a number. */
#define SLURM_BACKWARD_COMPAT
#include_next <slurm/slurm.h>
#include <errno.h>
#include <slurm/slurm_errno.h>
#include <string.h>

/* Renamed in 26.05, and removed from it. */
#define slurm_free_ctl_conf slurm_free_conf
#define ESLURM_ERROR_ON_DESC_TO_RECORD_COPY 2007

void slurm_xfree(void **);

/* pyslurm free()s the name it gets and judges success by errno; 26.05 hands out xmalloc'd memory, which
 * free() aborts on, and freeing that may change errno. */
static inline char *kezek_create_reservation(resv_desc_msg_t *wanted)
{
	errno = 0;
	char *name = (slurm_create_reservation)(wanted);
	int error = name ? 0 : errno;
	char *copy = name ? strdup(name) : NULL;

	slurm_xfree((void **) &name);
	errno = error;
	return copy;
}
#define slurm_create_reservation(wanted) kezek_create_reservation(wanted)
#endif
