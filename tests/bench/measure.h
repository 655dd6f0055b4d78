/* SPDX-License-Identifier: Apache-2.0 */
/* What the programs of this folder that measure share. */
#ifndef HEDDLE_TESTS_BENCH_MEASURE_H
#define HEDDLE_TESTS_BENCH_MEASURE_H

#include <errno.h>
#include <error.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static inline void pin(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		error(1, errno, "CPU %d", cpu);
}

/* For qsort() of doubles. */
static inline int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Prints what the answered ones of a series took, in microseconds; us is freed. */
static inline void tell_latency(double *us, int done, int lost)
{
	if (!done)
		error(1, 0, "nothing arrived");
	qsort(us, (size_t)done, sizeof(*us), by_value);
	printf("{\"p50\": %.2f, \"p99\": %.2f, \"lost\": %d}\n", us[done / 2], us[done * 99 / 100], lost);
	fflush(stdout);
	free(us);
}

static inline void read_frame(const char *hex, uint8_t *ret, size_t length)
{
	if (strlen(hex) != 2 * length)
		error(2, 0, "%s: want a frame of %zu bytes", hex, length);
	for (size_t i = 0; i < length; i++)
		if (sscanf(hex + 2 * i, "%2hhx", &ret[i]) != 1)
			error(2, 0, "%s: want hexadecimal digits", hex);
}

#endif
