/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which program of an uplink takes frames out of their tunnel. XDP does where the record says HD_PORT_DECAP, and TC whatever XDP has left to it, so
 * that the flag may come and go under traffic. What XDP has taken out TC must believe: the flag is set once everything else is in place, and is gone,
 * with the last such frame, before TC believes XDP no longer.
 */
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <linux/if_link.h>

#include <datapath/internal.h>

/* What a packet may take from XDP to TC beyond a grace period, in a list of GRO or a backlog. */
#define PASSAGE_NS (10 * 1000 * 1000)

static bool say(char reason[DECAP_REASON], bool xdp, const char *format, ...) __attribute__((format(printf, 3, 4)));
static bool say(char reason[DECAP_REASON], bool xdp, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	(void)vsnprintf(reason, DECAP_REASON, format, args);
	va_end(args);
	return xdp;
}

static bool serves(
	const struct load *load, const struct attached *at, const struct datapath_uplink *uplink, char reason[DECAP_REASON])
{
	bool native = at->link[LINK_XDP] >= 0 && at->xdp_flags == XDP_FLAGS_DRV_MODE;
	const char *mode = at->link[LINK_XDP] < 0 ? "off" : "generic";

	reason[0] = '\0';
	if (!uplink->tunnel || uplink->slow)
		return false;
	if (uplink->decapsulate == TUNNEL_DECAPSULATE_TC)
		return say(reason, false, "the Host document has TC do it");
	if (!native && uplink->decapsulate == TUNNEL_DECAPSULATE_XDP)
		return say(reason, false, "the Host document has XDP do it, which takes native XDP: it is %s%s%s", mode,
			at->xdp_reason[0] ? ", " : "", at->xdp_reason);
	if (!native)
		return say(reason, false, "XDP is %s", mode);
	if (load->program[HD_HOOK_TC_TUNNEL_IN] < 0)
		return say(reason, false, "the program that goes on with the frames is not loaded");
	if (uplink->decapsulate == TUNNEL_DECAPSULATE_XDP)
		return say(reason, true, "the Host document has XDP do it");
	if (uplink_is_veth(uplink))
		return say(reason, false, "on a veth XDP does it only where the Host document says so");
	return say(reason, true, "XDP is native");
}

bool decap_stays(struct load *load, const struct attached *at, const struct datapath_uplink *uplink)
{
	char reason[DECAP_REASON];
	struct hd_port record;

	return port_read(load, at->ifindex, &record) == 0 && record.flags & HD_PORT_DECAP && serves(load, at, uplink, reason);
}

int decap_begin(struct load *load, struct attached *at, const struct datapath_uplink *uplink)
{
	char reason[DECAP_REASON];
	bool xdp = serves(load, at, uplink, reason);

	if (reason[0] && strcmp(reason, at->decap_reason) != 0) {
		if (!xdp && uplink->decapsulate == TUNNEL_DECAPSULATE_XDP)
			log_notice("%s: TC takes frames out of their tunnel: %s", at->device, reason);
		else
			log_debug("%s: %s takes frames out of their tunnel: %s", at->device, xdp ? "XDP" : "TC", reason);
	}
	memcpy(at->decap_reason, reason, sizeof(reason));
	at->decap = xdp ? DECAP_XDP : uplink->tunnel && !uplink->slow ? DECAP_TC : DECAP_NONE;
	return xdp && !decap_stays(load, at, uplink) ? port_set_flags(load, at->ifindex, HD_PORT_DECAP, 0) : 0;
}

static bool clear(struct load *load, uint32_t ifindex)
{
	struct hd_port record;

	if (!load || port_read(load, ifindex, &record) < 0 || !(record.flags & HD_PORT_DECAP))
		return false;
	return port_set_flags(load, ifindex, 0, HD_PORT_DECAP) == 0;
}

void decap_end(struct datapath *dp, const struct attached *at)
{
	bool live = clear(dp->live, at->ifindex), next = clear(dp->next, at->ifindex);

	if (!live && !next)
		return;
	dp->grace_pending = true;
	(void)grace_wait(dp);
	nanosleep(&(struct timespec){.tv_nsec = PASSAGE_NS}, NULL);
}
