/* SPDX-License-Identifier: Apache-2.0 */
/* Each NIC that could be an uplink, or whose VFs could be ports. */
#include <stdlib.h>
#include <string.h>

#include <util/cleanup.h>
#include <util/port_name.h>

#include <tools/doctor/nic.h>
#include <tools/doctor/parse.h>

/* Beyond that a page does not hold the frame and XDP's headroom. */
#define XDP_FRAME_MAX 3498
#define TUN_FLAG_TAP 0x0002
#define TUN_FLAG_QUEUES 0x0100
#define TUN_FLAG_HEADER 0x4000
#define CPUS_MAX 4096

struct nic {
	const char *name;
	char *driver_name, *address;
	const struct nic_driver *driver; /* NULL: not known */
	enum nic_kind kind;
	bool is_pci, is_vf;
	char pf[64]; /* of a VF: PCI address of the device it belongs to */
	long long mtu, total_vfs, vfs, node;
	struct nic_facts facts;
};

/* change: DEV stands for the device's name. */
static void say(struct doctor *doctor, const struct nic *nic, enum severity severity, const char *name, const char *path,
	const char *change, json_t *details, const char *value)
{
	const char *dev = change ? strstr(change, "DEV") : NULL;
	char text[256];

	if (dev)
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(dev - change), change, nic->name, dev + strlen("DEV"));
	doctor_say(doctor,
		&(struct finding){.severity = severity,
			.area = "nic",
			.subject = nic->name,
			.name = name,
			.path = path,
			.change = dev ? text : change,
			.details = details},
		"%s", value);
}

/* 1, 0, -1: not told. Some have another name in the tool's output than in the kernel. */
static int feature(const struct nic *nic, const char *name, const char *tool_name)
{
	int value = nic->facts.features ? parse_feature(nic->facts.features, name) : -1;

	return value < 0 && nic->facts.features && tool_name ? parse_feature(nic->facts.features, tool_name) : value;
}

static int lro(const struct nic *nic)
{
	return feature(nic, "rx-lro", "large-receive-offload");
}

/* --- what it is --- */

static void say_device(struct doctor *doctor, const struct nic *nic)
{
	static const char *const kinds[] = {[NIC_PHYSICAL] = "a NIC",
		[NIC_PARAVIRTUAL] = "a virtual machine's NIC",
		[NIC_TAP] = "a TAP device",
		[NIC_SIMULATED] = "a simulated NIC"};
	_cleanup_free_ char *speed_text = doctor_text(doctor, "sys/class/net/%s/speed", nic->name);
	_cleanup_free_ char *state = doctor_text(doctor, "sys/class/net/%s/operstate", nic->name);
	long long speed = speed_text ? strtoll(speed_text, NULL, 10) : -1;
	char rate[32] = "", text[512];
	json_t *details = json_pack("{s:s?, s:s?, s:s, s:o, s:s?, s:I, s:o}", "driver", nic->driver_name, "address", nic->address,
		"kind", nic->is_vf ? "vf" : ((const char *[]){"nic", "paravirtual", "tap", "simulated"})[nic->kind], "speedMbps",
		speed > 0 ? json_integer(speed) : json_null(), "state", state, "mtu", (json_int_t)nic->mtu, "pf",
		nic->is_vf ? json_string(nic->pf) : json_null());

	if (speed >= 1000)
		snprintf(rate, sizeof(rate), ", %lld%s Gbit/s", speed / 1000, speed % 1000 ? ".5" : "");
	else if (speed > 0)
		snprintf(rate, sizeof(rate), ", %lld Mbit/s", speed);
	snprintf(text, sizeof(text), "%s%s%s%s%s%s%s%s%s%s", nic->is_vf ? "a VF" : kinds[nic->kind], nic->is_vf ? " of " : "",
		nic->pf, nic->driver_name ? ", " : "", nic->driver_name ?: "", nic->address ? ", " : "", nic->address ?: "", rate,
		state ? ", " : "", state ?: "");
	say(doctor, nic, DOCTOR_OK, "device",
		nic->is_vf		       ? "as a port it has the representor's, or what the PF enforces"
		: nic->kind == NIC_PARAVIRTUAL ? "an uplink; what it offloads is the host's affair"
					       : NULL,
		NULL, details, text);
}

static void say_tap(struct doctor *doctor, struct nic *nic)
{
	long long flags = 0;
	bool header;

	(void)doctor_number(doctor, &flags, "sys/class/net/%s/tun_flags", nic->name);
	header = flags & TUN_FLAG_HEADER;
	if (!(flags & TUN_FLAG_TAP)) {
		say(doctor, nic, DOCTOR_OK, "device", "no port: it has no Ethernet header", NULL, NULL, "a TUN device");
		return;
	}
	say(doctor, nic, header ? DOCTOR_OK : DOCTOR_NOTE, "device",
		header ? "a port; large packets reach the virtual machine in one piece"
		       : "a port; large packets are cut before they reach it",
		header ? NULL : "open it with IFF_VNET_HDR (vhost=on of QEMU)", NULL,
		flags & TUN_FLAG_QUEUES ? "a TAP device, several queues" : "a TAP device, one queue");
}

/* --- queues, interrupts, memory nodes --- */

struct cpu_set {
	uint64_t bits[CPUS_MAX / 64];
};

static void cpu_add(unsigned n, void *userdata)
{
	struct cpu_set *set = userdata;

	set->bits[n / 64] |= 1ull << n % 64;
}

static unsigned cpu_count(const struct cpu_set *set)
{
	unsigned n = 0;

	for (size_t i = 0; i < CPUS_MAX / 64; i++)
		n += (unsigned)__builtin_popcountll(set->bits[i]);
	return n;
}

static unsigned count_queues(struct doctor *doctor, const struct nic *nic, const char *prefix)
{
	char **names = doctor_names(doctor, "sys/class/net/%s/queues", nic->name);
	unsigned n = 0;

	for (char **name = names; name && *name; name++)
		n += strncmp(*name, prefix, strlen(prefix)) == 0;
	doctor_names_free(names);
	return n;
}

static void say_queues(struct doctor *doctor, const struct nic *nic)
{
	unsigned rx = count_queues(doctor, nic, "rx-"), tx = count_queues(doctor, nic, "tx-");
	int now = nic->facts.combined, most = nic->facts.combined_max, hashing = feature(nic, "rx-hashing", "receive-hashing");
	unsigned used = now > 0 ? (unsigned)now : rx, could = most > 0 ? (unsigned)most : 0;
	bool few = doctor->cpus > 1 && used < doctor->cpus && could > used;
	char text[160], more[64] = "";
	json_t *details = json_pack("{s:i, s:i, s:o, s:o, s:o, s:o}", "rx", (int)rx, "tx", (int)tx, "combined",
		now >= 0 ? json_integer(now) : json_null(), "combinedMax", most >= 0 ? json_integer(most) : json_null(), "rss",
		hashing >= 0 ? json_boolean(hashing) : json_null(), "indirectionTable",
		nic->facts.indirection >= 0 ? json_integer(nic->facts.indirection) : json_null());

	if (could)
		snprintf(more, sizeof(more), " (of %u)", could);
	snprintf(text, sizeof(text), "%u receive%s, %u transmit; %s", used, more, tx,
		used < 2				    ? "no RSS: one queue"
		: hashing == 0				    ? "RSS off"
		: nic->facts.indirection > 0 || hashing > 0 ? "RSS"
							    : "RSS not told");
	if (few)
		say(doctor, nic, DOCTOR_NOTE, "queues", "not every CPU receives", "ethtool -L DEV combined N", details, text);
	else if (used >= 2 && hashing == 0)
		say(doctor, nic, DOCTOR_NOTE, "queues", "one queue, and one CPU, receives all", "ethtool -K DEV rxhash on",
			details, text);
	else
		say(doctor, nic, DOCTOR_OK, "queues", used < 2 && doctor->cpus > 1 ? "one CPU judges what comes in" : NULL,
			used < 2 && doctor->cpus > 1 && nic->kind == NIC_PARAVIRTUAL
				? "give the virtual machine's NIC several queues"
				: NULL,
			details, text);
}

static void say_interrupts(struct doctor *doctor, const struct nic *nic)
{
	_cleanup_free_ char *local_text =
		nic->node >= 0 ? doctor_text(doctor, "sys/devices/system/node/node%lld/cpulist", nic->node) : NULL;
	/* Those of a virtio device are its PCI device's, one up. */
	bool above = !doctor_exists(doctor, "sys/class/net/%s/device/msi_irqs", nic->name);
	char **names = doctor_names(
		doctor, above ? "sys/class/net/%s/device/../msi_irqs" : "sys/class/net/%s/device/msi_irqs", nic->name);
	struct cpu_set used = {0}, local = {0};
	unsigned n = 0, remote = 0;
	bool has_local = local_text && parse_list(local_text, CPUS_MAX, cpu_add, &local) > 0;
	char text[160];

	for (char **name = names; name && *name; name++) {
		_cleanup_free_ char *list = doctor_text(doctor, "proc/irq/%s/effective_affinity_list", *name);
		struct cpu_set one = {0};
		bool is_local = false;

		if (!list || !*list) {
			free(list);
			list = doctor_text(doctor, "proc/irq/%s/smp_affinity_list", *name);
		}
		if (!list || parse_list(list, CPUS_MAX, cpu_add, &one) <= 0)
			continue;
		n++;
		for (size_t i = 0; i < CPUS_MAX / 64; i++) {
			used.bits[i] |= one.bits[i];
			is_local |= one.bits[i] & local.bits[i];
		}
		remote += has_local && !is_local;
	}
	doctor_names_free(names);
	if (!n)
		return;
	snprintf(text, sizeof(text), "%u, on %u CPU%s%s", n, cpu_count(&used), cpu_count(&used) == 1 ? "" : "s",
		remote ? ", some on another node" : "");
	json_t *details =
		json_pack("{s:i, s:i, s:i}", "interrupts", (int)n, "cpus", (int)cpu_count(&used), "onOtherNode", (int)remote);

	if (n > 2 && cpu_count(&used) == 1 && doctor->cpus > 1)
		say(doctor, nic, DOCTOR_WARNING, "interrupts", "one CPU judges all of it",
			"irqbalance, or /proc/irq/N/smp_affinity_list, one CPU a queue", details, text);
	else if (remote)
		say(doctor, nic, DOCTOR_NOTE, "interrupts", "packets cross between memory nodes",
			"/proc/irq/N/smp_affinity_list, to CPUs of the NIC's node", details, text);
	else
		say(doctor, nic, DOCTOR_OK, "interrupts", NULL, NULL, details, text);
}

/* --- offloads --- */

static void word(char *text, size_t size, int value, const char *name)
{
	size_t length = strlen(text);

	if (value >= 0)
		snprintf(text + length, size - length, "%s%s%s", length ? ", " : "", value ? "" : "no ", name);
}

static void set(json_t *details, const char *key, int value)
{
	json_object_set_new(details, key, value < 0 ? json_null() : json_boolean(value));
}

static void say_offloads(struct doctor *doctor, const struct nic *nic)
{
	int tso = feature(nic, "tx-tcp-segmentation", "tcp-segmentation-offload");
	int gso = feature(nic, "tx-generic-segmentation", "generic-segmentation-offload");
	int gro = feature(nic, "rx-gro", "generic-receive-offload"), merges = lro(nic);
	int rx_sum = feature(nic, "rx-checksum", "rx-checksumming"), generic_sum = feature(nic, "tx-checksum-ip-generic", NULL);
	int sum4 = feature(nic, "tx-checksum-ipv4", NULL);
	int tx_sum = generic_sum > 0 || sum4 > 0 ? 1 : generic_sum < 0 && sum4 < 0 ? -1 : 0;
	int tunnel = feature(nic, "tx-udp_tnl-segmentation", NULL),
	    tunnel_sum = feature(nic, "tx-udp_tnl-csum-segmentation", NULL);
	int tags = feature(nic, "rx-vlan-hw-parse", "rx-vlan-offload"), tc = feature(nic, "hw-tc-offload", NULL);
	json_t *details = json_object(), *sums = json_object(), *tunnels = json_object();
	char text[200] = "", sum_text[100] = "", tunnel_text[120] = "";

	set(details, "tso", tso);
	set(details, "gso", gso);
	set(details, "gro", gro);
	set(details, "lro", merges);
	word(text, sizeof(text), tso, "TSO");
	word(text, sizeof(text), gso, "GSO");
	word(text, sizeof(text), gro, "GRO");
	word(text, sizeof(text), merges, "LRO");
	if (merges > 0)
		say(doctor, nic, DOCTOR_WARNING, "segments",
			"what LRO merged cannot be forwarded as it was; most drivers refuse native XDP with it",
			"ethtool -K DEV lro off", details, text);
	else if (gro == 0)
		say(doctor, nic, DOCTOR_NOTE, "segments", "each segment is judged by itself", "ethtool -K DEV gro on", details,
			text);
	else if (tso == 0)
		say(doctor, nic, DOCTOR_NOTE, "segments", "the kernel cuts large packets before the NIC",
			"ethtool -K DEV tso on, where it can", details, text);
	else
		say(doctor, nic, *text ? DOCTOR_OK : DOCTOR_UNKNOWN, "segments",
			*text ? "packets of many segments are judged once" : NULL, NULL, details, *text ? text : "not told");

	set(sums, "rx", rx_sum);
	set(sums, "tx", tx_sum);
	word(sum_text, sizeof(sum_text), rx_sum, "receive");
	word(sum_text, sizeof(sum_text), tx_sum, "send");
	say(doctor, nic,
		rx_sum == 0 || tx_sum == 0 ? DOCTOR_NOTE
		: *sum_text		   ? DOCTOR_OK
					   : DOCTOR_UNKNOWN,
		"checksums", tx_sum == 0 ? "the kernel sums each packet that leaves" : NULL,
		rx_sum == 0 || tx_sum == 0 ? "ethtool -K DEV rx on tx on" : NULL, sums, *sum_text ? sum_text : "not told");

	set(tunnels, "segmentation", tunnel);
	set(tunnels, "outerChecksum", tunnel_sum);
	word(tunnel_text, sizeof(tunnel_text), tunnel, "segmentation");
	word(tunnel_text, sizeof(tunnel_text), tunnel_sum, "outer checksum");
	say(doctor, nic,
		tunnel == 0    ? DOCTOR_NOTE
		: *tunnel_text ? DOCTOR_OK
			       : DOCTOR_UNKNOWN,
		"tunnel offload",
		tunnel > 0    ? "encapsulated TCP leaves as packets of many segments"
		: tunnel == 0 ? "the kernel cuts encapsulated TCP in software, behind our programs"
			      : NULL,
		tunnel == 0 ? "ethtool -K DEV tx-udp_tnl-segmentation on, where it can" : NULL, tunnels,
		*tunnel_text ? tunnel_text : "not told");

	if (tags > 0)
		say(doctor, nic, DOCTOR_NOTE, "vlan offload",
			"with a network that has a VLAN, XDP is off here: it would not see the tags",
			"ethtool -K DEV rxvlan off, before such a network", NULL, "the NIC takes tags off");
	if (tc >= 0 && nic->facts.eswitch == ESWITCH_SWITCHDEV)
		say(doctor, nic, tc ? DOCTOR_OK : DOCTOR_NOTE, "tc offload", tc ? NULL : "flows stay in software",
			tc ? NULL : "ethtool -K DEV hw-tc-offload on", NULL, tc ? "on" : "off");
}

/* --- XDP --- */

static void say_xdp(struct doctor *doctor, const struct nic *nic)
{
	bool told = nic->facts.xdp.ifindex || nic->driver;
	bool native = nic->facts.xdp.ifindex ? nic->facts.xdp.features & XDP_BASIC : nic->driver && nic->driver->native;
	bool zero_copy = nic->facts.xdp.ifindex ? nic->facts.xdp.features & XDP_ZERO_COPY : nic->driver && nic->driver->zero_copy;
	bool frags = nic->facts.xdp.ifindex && nic->facts.xdp.features & XDP_FRAGS;
	const char *source = nic->facts.xdp.ifindex ? "the device says" : told ? "by its driver" : "driver not known here";
	json_t *details = json_pack("{s:o, s:o, s:o, s:s, s:s?}", "native", told ? json_boolean(native) : json_null(), "zeroCopy",
		told ? json_boolean(zero_copy) : json_null(), "frags", nic->facts.xdp.ifindex ? json_boolean(frags) : json_null(),
		"source", source, "remark", nic->driver && !nic->facts.xdp.ifindex ? nic->driver->remark : NULL);
	char text[256];

	if (!told)
		snprintf(text, sizeof(text), "not told: %s", source);
	else
		snprintf(text, sizeof(text), "%s (%s)%s%s",
			native ? frags ? "native, frames of several pages too" : "native" : "generic only", source,
			nic->driver && !nic->facts.xdp.ifindex && nic->driver->remark ? "; " : "",
			nic->driver && !nic->facts.xdp.ifindex && nic->driver->remark ? nic->driver->remark : "");
	if (native && nic->mtu > XDP_FRAME_MAX && nic->facts.xdp.ifindex && !frags)
		say(doctor, nic, DOCTOR_NOTE, "xdp",
			"with this MTU the driver refuses native XDP: generic, and tunnels taken off in TC",
			"an MTU of 3498 or less", details, text);
	else if (native && lro(nic) > 0)
		say(doctor, nic, DOCTOR_NOTE, "xdp", "generic while LRO is on", "ethtool -K DEV lro off", details, text);
	else if (native)
		say(doctor, nic, DOCTOR_OK, "xdp",
			"xdp_uplink runs native: judged before the stack; tunnels taken off there, so that GRO sees inner "
			"packets",
			NULL, details, text);
	else
		say(doctor, nic, told ? DOCTOR_NOTE : DOCTOR_UNKNOWN, "xdp",
			told ? "generic XDP; tunnels are taken off in TC, and inner packets see no GRO"
			     : "tried at attachment; status says what it came to",
			NULL, details, text);
	say(doctor, nic, told ? DOCTOR_OK : DOCTOR_UNKNOWN, "af_xdp",
		!told	    ? NULL
		: zero_copy ? "sockets bind zero-copy"
		: native    ? "sockets bind with a copy of each packet"
			    : "sockets bind with a copy, behind generic XDP",
		NULL, NULL,
		!told	    ? "not told"
		: zero_copy ? "zero-copy"
		: native    ? "copy, native"
			    : "copy, generic");
}

static void say_metadata(struct doctor *doctor, const struct nic *nic)
{
	static const struct {
		const char *name;
		uint64_t bit;
	} words[] = {{"timestamp", METADATA_TIMESTAMP}, {"hash", METADATA_HASH}, {"vlanTag", METADATA_VLAN}};
	json_t *details;
	char text[64] = "";

	if (!nic->facts.xdp.metadata_told)
		return;
	details = json_object();
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		bool has = nic->facts.xdp.metadata & words[i].bit;

		json_object_set_new(details, words[i].name, json_boolean(has));
		if (has)
			word(text, sizeof(text), 1, words[i].name);
	}
	say(doctor, nic, DOCTOR_OK, "xdp metadata", "not used: programs belong to no device", NULL, details,
		*text ? text : "none");
}

/* --- VFs --- */

static void say_sriov(struct doctor *doctor, const struct nic *nic)
{
	char switchdev[128];
	/* Only devices that have an eswitch answer for its mode. */
	bool can = nic->facts.eswitch >= 0 || (nic->driver && nic->driver->switchdev);
	json_t *details;
	char text[96];

	if (nic->total_vfs <= 0)
		return;
	details = json_pack("{s:I, s:I}", "total", (json_int_t)nic->total_vfs, "now", (json_int_t)nic->vfs);
	snprintf(switchdev, sizeof(switchdev), "devlink dev eswitch set pci/%s mode switchdev, before the VFs are used",
		nic->address ?: "");
	snprintf(text, sizeof(text), "%lld of %lld VFs", nic->vfs, nic->total_vfs);
	say(doctor, nic, nic->vfs && !doctor->n_iommus ? DOCTOR_WARNING : DOCTOR_OK, "sr-iov",
		nic->vfs && !doctor->n_iommus ? "VFs without an IOMMU: whoever has one reaches all memory" : NULL,
		nic->vfs && !doctor->n_iommus ? "turn the IOMMU on before a VF is given away" : NULL, details, text);
	details = json_pack("{s:s?}", "mode",
		nic->facts.eswitch == ESWITCH_SWITCHDEV ? "switchdev"
		: nic->facts.eswitch == ESWITCH_LEGACY	? "legacy"
							: NULL);
	if (nic->facts.eswitch == ESWITCH_SWITCHDEV)
		say(doctor, nic, DOCTOR_OK, "eswitch",
			"VFs are ports by their representors: policy, source checks, overlay, counters", NULL, details,
			"switchdev");
	else
		say(doctor, nic,
			nic->facts.eswitch < 0 && (can || !nic->driver) ? DOCTOR_UNKNOWN
			: nic->vfs && can				? DOCTOR_NOTE
									: DOCTOR_OK,
			"eswitch", "VFs bypass the programs: MAC, VLAN, rate and spoof check by the NIC, no policy",
			can ? switchdev : NULL, details,
			nic->facts.eswitch == ESWITCH_LEGACY ? "legacy"
			: can || !nic->driver		     ? "not told"
							     : "legacy: its driver has no other mode");
}

/* --- which of them --- */

static void look_at(struct doctor *doctor, const char *name)
{
	_cleanup_free_ char *bus = doctor_link(doctor, "sys/class/net/%s/device/subsystem", name), *pf = NULL;
	struct nic nic = {.name = name, .node = -1, .facts = {.eswitch = -1}};
	bool is_tun = doctor_exists(doctor, "sys/class/net/%s/tun_flags", name);
	char text[64];

	if (is_tun) {
		say_tap(doctor, &nic);
		return;
	}
	nic.driver_name = doctor_link(doctor, "sys/class/net/%s/device/driver", name);
	nic.address = doctor_link(doctor, "sys/class/net/%s/device", name);
	nic.driver = nic.driver_name ? nic_driver(nic.driver_name) : NULL;
	nic.kind = nic.driver ? nic.driver->kind : NIC_PHYSICAL;
	nic.is_pci = bus && strcmp(bus, "pci") == 0;
	pf = doctor_link(doctor, "sys/class/net/%s/device/physfn", name);
	nic.is_vf = pf != NULL;
	snprintf(nic.pf, sizeof(nic.pf), "%s", pf ?: "");
	(void)doctor_number(doctor, &nic.mtu, "sys/class/net/%s/mtu", name);
	(void)doctor_number(doctor, &nic.total_vfs, "sys/class/net/%s/device/sriov_totalvfs", name);
	(void)doctor_number(doctor, &nic.vfs, "sys/class/net/%s/device/sriov_numvfs", name);
	if (!doctor_number(doctor, &nic.node, "sys/class/net/%s/device/numa_node", name))
		nic.node = -1;
	nic_ask(doctor, name, nic.is_pci && nic.total_vfs > 0 ? nic.address : NULL, &nic.facts);
	say_device(doctor, &nic);
	if (!nic.is_vf) {
		say_queues(doctor, &nic);
		say_interrupts(doctor, &nic);
		say_offloads(doctor, &nic);
		say_xdp(doctor, &nic);
		say_metadata(doctor, &nic);
		say_sriov(doctor, &nic);
		snprintf(text, sizeof(text), "node %lld", nic.node);
		if (nic.node >= 0)
			say(doctor, &nic, DOCTOR_OK, "numa", NULL, NULL, NULL, text);
	}
	nic_facts_clear(&nic.facts);
	free(nic.driver_name);
	free(nic.address);
}

/* phys_port_name of a representor; those of an uplink ("p0") are NICs. */
static bool is_representor(struct doctor *doctor, const char *name)
{
	_cleanup_free_ char *port = doctor_text(doctor, "sys/class/net/%s/phys_port_name", name);

	return port && port_name_parse(port).flavour >= PORT_PF;
}

void doctor_nics(struct doctor *doctor)
{
	char **names = doctor_names(doctor, "sys/class/net");
	unsigned representors = 0, nics = 0;

	for (char **name = names; name && *name; name++) {
		bool has_device = doctor_exists(doctor, "sys/class/net/%s/device", *name);

		if (is_representor(doctor, *name)) {
			representors++;
		} else if (has_device || doctor_exists(doctor, "sys/class/net/%s/tun_flags", *name)) {
			nics++;
			look_at(doctor, *name);
		}
	}
	doctor_names_free(names);
	if (representors)
		doctor_say(doctor,
			&(struct finding){.area = "nic",
				.name = "representors",
				.path = "ports, by the same programs as a veth",
				.details = json_pack("{s:i}", "count", (int)representors)},
			"%u", representors);
	if (!nics)
		doctor_say(doctor, &(struct finding){.severity = DOCTOR_NOTE, .area = "nic", .name = "devices"},
			"none: no device of a bus, and no TAP, in this namespace");
}
