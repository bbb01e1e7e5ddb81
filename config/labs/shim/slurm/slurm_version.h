/* Tells pyslurm 25.11 that it meets the Slurm it was written for; its set-up refuses any other. */
#ifndef KEZEK_SLURM_VERSION_H
#define KEZEK_SLURM_VERSION_H
#define SLURM_VERSION_NUMBER 0x190b02
#define SLURM_VERSION_MAJOR(n) (((n) >> 16) & 0xff)
#define SLURM_VERSION_MINOR(n) (((n) >> 8) & 0xff)
#define SLURM_VERSION_MICRO(n) ((n) & 0xff)
#define SLURM_VERSION_NUM(major, minor, micro) (((major) << 16) + ((minor) << 8) + (micro))
#endif
