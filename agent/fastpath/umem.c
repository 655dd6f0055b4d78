/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <fastpath/umem.h>
#include <util/cleanup.h>

#define HUGE_PAGE (2u << 20)
#define SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static bool sensible(uint32_t frame_size, uint32_t frames)
{
	return (frame_size & (frame_size - 1)) == 0 && frame_size >= UMEM_FRAME_LEAST && frame_size <= UMEM_FRAME_MOST &&
	       frames > 0 && frames <= UMEM_FRAMES_MOST;
}

/* A wish: where the node has no memory left, another one's will do. */
static void prefer_node(void *area, size_t length, int node)
{
	unsigned long mask[16] = {0};

	if (node < 0 || (size_t)node >= sizeof(mask) * CHAR_BIT)
		return;
	mask[(size_t)node / (sizeof(*mask) * CHAR_BIT)] = 1ul << ((size_t)node % (sizeof(*mask) * CHAR_BIT));
	(void)syscall(SYS_mbind, area, length, MPOL_PREFERRED, mask, sizeof(mask) * CHAR_BIT, 0);
}

static int create(size_t length, bool huge, int node, int *ret_fd, void **ret_area)
{
	_cleanup_close_ int fd =
		memfd_create("heddle-fastpath", MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
	void *area;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)length) < 0)
		return -errno;
	/* the size is what must not change under a mapping; the seal itself is sealed too */
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		return -errno;
	/* huge pages are reserved here, or there are not enough of them */
	area = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (area == MAP_FAILED)
		return -errno;
	prefer_node(area, length, node);
	*ret_fd = TAKE_FD(fd);
	*ret_area = area;
	return 0;
}

int umem_create(uint32_t frame_size, uint32_t frames, int node, bool try_huge, struct umem *ret)
{
	struct umem umem = {.fd = -1, .frame_size = frame_size, .frames = frames};
	int r = -ENOMEM;

	if (!sensible(frame_size, frames))
		return -EINVAL;
	umem.length = (size_t)frame_size * frames;
	if (try_huge && umem.length >= HUGE_PAGE) {
		size_t length = (umem.length + HUGE_PAGE - 1) & ~(size_t)(HUGE_PAGE - 1);

		r = create(length, true, node, &umem.fd, &umem.area);
		if (r >= 0) {
			umem.length = length;
			umem.huge = true;
		}
	}
	if (r < 0)
		r = create(umem.length, false, node, &umem.fd, &umem.area);
	if (r < 0)
		return r;
	*ret = umem;
	return 0;
}

int umem_attach(int fd, uint32_t frame_size, uint32_t frames, struct umem *ret)
{
	struct umem umem = {.fd = fd, .frame_size = frame_size, .frames = frames};
	struct stat st;
	int seals;

	if (!sensible(frame_size, frames))
		return -EINVAL;
	umem.length = (size_t)frame_size * frames;
	if (fstat(fd, &st) < 0)
		return -errno;
	seals = fcntl(fd, F_GET_SEALS);
	if (!S_ISREG(st.st_mode) || st.st_size < 0 || (size_t)st.st_size < umem.length || seals < 0 || !(seals & F_SEAL_SHRINK))
		return -EINVAL;
	/* of huge pages the whole, or the kernel refuses to unmap a part */
	umem.huge = st.st_blksize >= HUGE_PAGE;
	umem.length = (size_t)st.st_size;
	umem.area = mmap(NULL, umem.length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (umem.area == MAP_FAILED)
		return -errno;
	*ret = umem;
	return 0;
}

void umem_unmap(struct umem *umem)
{
	if (umem->area)
		munmap(umem->area, umem->length);
	umem->area = NULL;
}

void umem_close(struct umem *umem)
{
	umem_unmap(umem);
	umem->fd = safe_close(umem->fd);
}
