# SPDX-License-Identifier: Apache-2.0
#
#   sudo make demo      show the main job in namespaces        sudo make test    everything that CI runs
#   make                heddled, heddle, heddle-cni, BPF       make lint         format, clang-tidy, shellcheck, style
#   make fuzz           every libFuzzer target                 make bench        beside the peers, in one run
#   make check-kernels  under QEMU on 6.1 and 6.12             make install      DESTDIR=, PREFIX=, CNIDIR=
#   make mutation       breaks each invariant in a copy of the tree, and sees its test fail
#
# demo and test call tools/setup first, which installs the Debian packages that are missing; the others expect them.
# BUILD= puts everything that is built elsewhere (default: build).

BUILD ?= build
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
# Where runtimes look first, whatever the prefix; Debian's own plugins are in /usr/lib/cni.
CNIDIR ?= /opt/cni/bin
LIBDIR ?= $(PREFIX)/lib
VERSION := 0.1.0
PYTHON := /usr/bin/python3
FUZZ_SECONDS ?= 60

CC = gcc
CLANG = clang
BPFTOOL = bpftool
export PATH := /usr/local/sbin:/usr/sbin:/sbin:$(PATH)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

# --- flags ---

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Werror
INCLUDES := -Iinclude -Iagent -I$(BUILD)/include -I.
# _GNU_SOURCE is defined empty, as a file that needs it would do itself.
CPPFLAGS_ALL := $(INCLUDES) -D_GNU_SOURCE= -DHEDDLE_VERSION=\"$(VERSION)\" $(CPPFLAGS)
HARDEN := -fstack-protector-strong -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2
# -fPIC: the verdict tests load the same objects as a shared library.
CFLAGS_ALL := -std=gnu11 -O2 -g -fPIC $(HARDEN) $(WARN) $(CFLAGS)
CFLAGS_ASAN := -std=gnu11 -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined $(WARN) $(CFLAGS)
# The kernel's headers want their flexible arrays followed by what belongs in them, which clang warns of.
CFLAGS_FUZZ := -std=gnu11 -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=undefined $(WARN) -Wno-gnu-variable-sized-type-not-at-end -Wno-missing-field-initializers -DHEDDLE_FUZZ $(CFLAGS)
LDFLAGS_ALL := -Wl,--as-needed -Wl,-z,relro,-z,now $(LDFLAGS)
AGENT_LIBS := -lmicrohttpd -lsystemd -lbpf -lelf -lz -lmnl -lyaml -ljansson -lcap-ng -lseccomp -lpthread -lm
CNI_LIBS := -lmnl -ljansson -lm
CLI_LIBS := -lcurl -ljansson -lyaml -lpcap -lmnl -lz

MULTIARCH = $(shell $(CC) -print-multiarch)
BPF_CFLAGS = -target bpf -mcpu=v3 -g -O2 -Wall -Werror -Iinclude -I. -I/usr/include/$(MULTIARCH)

# --- sources ---

AGENT_SRC := $(filter-out agent/main.c,$(wildcard agent/*.c agent/*/*.c))
CLI_SRC := $(wildcard tools/heddle/*.c tools/doctor/*.c)
CNI_SRC := $(wildcard cni/*.c)
BPF_SRC := $(wildcard bpf/*.bpf.c)
UNIT_SRC := $(wildcard tests/unit/*_test.c)
UNIT_HELPER_SRC := $(filter-out $(UNIT_SRC) %.bpf.c,$(wildcard tests/unit/*.c))
FUZZ_SRC := $(wildcard tests/fuzz/*_fuzz.c)
VERDICT_SRC := $(filter-out %.bpf.c,$(wildcard tests/verdict/*.c))
# Small programs that tests run: one executable a file, build/tests/FOLDER/NAME.
TOOL_SRC := $(filter-out %.bpf.c,$(wildcard $(foreach d,net bench kernel differential,tests/$d/*.c)))
TEST_BPF_SRC := $(wildcard tests/*/*.bpf.c)

AGENT_OBJ := $(AGENT_SRC:%.c=$(BUILD)/obj/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/obj/%.o)
CNI_OBJ := $(CNI_SRC:%.c=$(BUILD)/obj/%.o)
# What a consumer of fast paths links: part of a layer of the agent, which has it too.
LIB_SRC := $(addprefix agent/fastpath/,client.c protocol.c umem.c xsk.c) agent/util/cleanup.c
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/lib/%.o)
# The second number of the file may change, the soname only with what is in its symbol map.
LIB_SONAME := libheddle-fastpath.so.1
LIB_FILE := $(LIB_SONAME).0
BPF_OBJ := $(BPF_SRC:bpf/%.bpf.c=$(BUILD)/bpf/%.bpf.o)
SKELETONS := $(BPF_SRC:bpf/%.bpf.c=$(BUILD)/include/%.skel.h)
UNIT_BIN := $(UNIT_SRC:%.c=$(BUILD)/%)
FUZZ_BIN := $(FUZZ_SRC:%.c=$(BUILD)/%)
TOOL_BIN := $(TOOL_SRC:%.c=$(BUILD)/%) $(TEST_BPF_SRC:%.c=$(BUILD)/%.o)
VERDICT_LIB := $(if $(VERDICT_SRC),$(BUILD)/tests/libverdict.so)

HEDDLED := $(if $(wildcard agent/main.c),$(BUILD)/heddled)
HEDDLE := $(if $(CLI_SRC),$(BUILD)/heddle)
HEDDLE_CNI := $(if $(CNI_SRC),$(BUILD)/heddle-cni)
LIBRARY := $(BUILD)/libheddle-fastpath.a $(BUILD)/libheddle-fastpath.so
# Examples of what uses it: not installed.
EXAMPLE_SRC := $(wildcard tools/fastpath/*.c)
EXAMPLES := $(EXAMPLE_SRC:tools/fastpath/%.c=$(BUILD)/fastpath-%)
MAN := $(wildcard tools/man/*.[0-9])

# One short line a step; V=1 shows the commands.
Q := $(if $(V),,@)
say = @$(if $(V),:,printf '  %-7s %s\n' $(1) $@)

# --- what can be asked for ---

.PHONY: all bpf unit fuzzers tools tests asan
all: $(HEDDLED) $(HEDDLE) $(HEDDLE_CNI) $(LIBRARY) $(EXAMPLES) bpf compile_commands.json
bpf: $(BPF_OBJ) $(SKELETONS)
unit: $(UNIT_BIN)
fuzzers: $(FUZZ_BIN)
tools: $(TOOL_BIN) $(EXAMPLES:$(BUILD)/%=$(BUILD)/asan/%)
tests: all unit tools $(VERDICT_LIB)
asan: $(BUILD)/asan/heddled $(BUILD)/asan/heddle-cni

.PHONY: setup test test-unit test-verdict test-net test-cni test-kubernetes test-differential test-cli test-load fuzz bench mutation lint check-kernels demo
setup:
	tools/setup
# Two makes, since on a fresh machine the first one runs without a compiler.
test demo: setup
	+$(MAKE) --no-print-directory $@-built
.PHONY: test-built demo-built
test-built: tests
	tests/run $(if $(PARTS),$(PARTS),unit cli verdict net cni kubernetes differential load)
demo-built: all
	tools/demo
test-unit: unit
	tests/run unit
test-cli: all
	tests/run cli
test-verdict: $(VERDICT_LIB) bpf
	tests/run verdict
test-net: all tools
	tests/run net
test-cni: all
	tests/run cni
test-kubernetes: all
	tests/run kubernetes
test-differential: all tools
	tests/run differential
test-load: bpf tools
	tests/run load
fuzz: fuzzers
	FUZZ_SECONDS=$(FUZZ_SECONDS) BUILD=$(BUILD) tests/run-fuzz
bench: all tools $(VERDICT_LIB)
	tests/bench/run
mutation:
	tests/mutation/run $(MUTATIONS)
lint: compile_commands.json $(SKELETONS)
	tools/lint
check-kernels: tests
	BUILD=$(BUILD) UPDATE=$(UPDATE) tests/kernel/check $(addprefix --part ,$(PARTS)) $(KERNELS)

.PHONY: install uninstall clean
install: all
	install -d $(addprefix $(DESTDIR),$(PREFIX)/sbin $(PREFIX)/bin $(UNITDIR) $(SYSCONFDIR)/heddle $(CNIDIR) $(LIBDIR)/pkgconfig \
		$(PREFIX)/include/heddle)
	install -m 0755 $(BUILD)/heddled $(DESTDIR)$(PREFIX)/sbin/heddled
	install -m 0755 $(BUILD)/heddle $(DESTDIR)$(PREFIX)/bin/heddle
	install -m 0755 $(BUILD)/heddle-cni $(DESTDIR)$(CNIDIR)/heddle-cni
	install -m 0644 $(BUILD)/libheddle-fastpath.a $(DESTDIR)$(LIBDIR)/libheddle-fastpath.a
	install -m 0755 $(BUILD)/$(LIB_FILE) $(DESTDIR)$(LIBDIR)/$(LIB_FILE)
	ln -sf $(LIB_FILE) $(DESTDIR)$(LIBDIR)/$(LIB_SONAME)
	ln -sf $(LIB_SONAME) $(DESTDIR)$(LIBDIR)/libheddle-fastpath.so
	install -m 0644 include/heddle/fastpath.h $(DESTDIR)$(PREFIX)/include/heddle/fastpath.h
	sed 's#@PREFIX@#$(PREFIX)#; s#@LIBDIR@#$(LIBDIR)#; s#@VERSION@#$(VERSION)#' agent/fastpath/heddle-fastpath.pc.in \
		>$(DESTDIR)$(LIBDIR)/pkgconfig/heddle-fastpath.pc
	for unit in heddled.service heddled-guard.service; do \
		sed -E 's#=/usr/local/(s?bin)/#=$(PREFIX)/\1/#' "agent/$$unit" >"$(BUILD)/$$unit"; \
		install -m 0644 "$(BUILD)/$$unit" "$(DESTDIR)$(UNITDIR)/$$unit"; done
	for page in $(MAN); do \
		install -D -m 0644 "$$page" "$(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/$${page##*/}"; done
	[ ! -f tools/completion/heddle.bash ] || \
		install -D -m 0644 tools/completion/heddle.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/heddle
	[ ! -f tools/completion/_heddle ] || \
		install -D -m 0644 tools/completion/_heddle $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_heddle
# Leaves configuration, state and what is attached: run heddled --detach first for the latter.
uninstall:
	rm -f $(addprefix $(DESTDIR),$(PREFIX)/sbin/heddled $(PREFIX)/bin/heddle $(CNIDIR)/heddle-cni $(UNITDIR)/heddled.service \
		$(UNITDIR)/heddled-guard.service $(LIBDIR)/libheddle-fastpath.a $(addprefix $(LIBDIR)/,$(LIB_FILE) $(LIB_SONAME)) \
		$(LIBDIR)/libheddle-fastpath.so $(LIBDIR)/pkgconfig/heddle-fastpath.pc $(PREFIX)/include/heddle/fastpath.h \
		$(PREFIX)/share/bash-completion/completions/heddle $(PREFIX)/share/zsh/site-functions/_heddle \
		$(foreach page,$(MAN),$(PREFIX)/share/man/man$(subst .,,$(suffix $(page)))/$(notdir $(page))))
clean:
	rm -rf $(BUILD) compile_commands.json

# --- BPF ---

$(BUILD)/bpf/%.bpf.o: bpf/%.bpf.c
	@mkdir -p $(@D)
	$(call say,BPF)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $@
	$(Q)llvm-strip -g $@
$(BUILD)/tests/%.bpf.o: tests/%.bpf.c
	@mkdir -p $(@D)
	$(call say,BPF)
	$(Q)$(CLANG) $(BPF_CFLAGS) -MMD -MP -MT $@ -MF $(@:.o=.d) -c $< -o $@
$(BUILD)/include/%.skel.h: $(BUILD)/bpf/%.bpf.o
	@mkdir -p $(@D)
	$(call say,SKEL)
	$(Q)$(BPFTOOL) gen skeleton $< name $(subst -,_,$*)_bpf >$@

# --- user space, three ways: as shipped, with sanitizers, for fuzzing ---

# The datapath layer alone includes skeletons; the .d files know which.
DATAPATH_SRC := $(filter agent/datapath/%,$(AGENT_SRC))
$(foreach how,obj asan fuzz,$(DATAPATH_SRC:%.c=$(BUILD)/$(how)/%.o)): | $(SKELETONS)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c $< -o $@
$(BUILD)/asan/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ASAN) -MMD -MP -c $< -o $@
$(BUILD)/fuzz/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CLANG) $(CPPFLAGS_ALL) $(CFLAGS_FUZZ) -MMD -MP -c $< -o $@

define archive
@mkdir -p $(@D)
$(call say,AR)
$(Q)rm -f $@
$(Q)ar rcs $@ $^
endef
$(BUILD)/libheddle.a: $(AGENT_OBJ)
	$(archive)
$(BUILD)/asan/libheddle.a: $(AGENT_SRC:%.c=$(BUILD)/asan/%.o)
	$(archive)
$(BUILD)/fuzz/libheddle.a: $(AGENT_SRC:%.c=$(BUILD)/fuzz/%.o)
	$(archive)
$(BUILD)/asan/libcli.a: $(patsubst %.c,$(BUILD)/asan/%.o,$(filter-out tools/heddle/main.c,$(CLI_SRC)))
	$(archive)
$(BUILD)/asan/libunit.a: $(UNIT_HELPER_SRC:%.c=$(BUILD)/asan/%.o)
	$(archive)

$(BUILD)/heddled: $(BUILD)/obj/agent/main.o $(BUILD)/libheddle.a
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) -pie $^ $(LDFLAGS_ALL) $(AGENT_LIBS) -o $@
$(BUILD)/asan/heddled: $(BUILD)/asan/agent/main.o $(BUILD)/asan/libheddle.a
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ASAN) $^ $(LDFLAGS_ALL) $(AGENT_LIBS) -o $@
# The client shares the lowest layer and nothing else.
$(BUILD)/libutil.a: $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard agent/util/*.c))
	$(archive)
$(BUILD)/heddle: $(CLI_OBJ) $(BUILD)/libutil.a
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) -pie $^ $(LDFLAGS_ALL) $(CLI_LIBS) -o $@
# The plugin and the agent both give VFs back.
LOAN_SRC := $(addprefix agent/netdev/,vf_loan.c vf_link.c netns_id.c)
$(BUILD)/heddle-cni: $(CNI_OBJ) $(LOAN_SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/libutil.a
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) -pie $^ $(LDFLAGS_ALL) $(CNI_LIBS) -o $@
$(BUILD)/asan/heddle-cni: $(CNI_SRC:%.c=$(BUILD)/asan/%.o) $(BUILD)/asan/libheddle.a
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ASAN) $^ $(LDFLAGS_ALL) $(CNI_LIBS) -o $@
# What its tests link: all but main().
$(BUILD)/asan/libcni.a: $(patsubst %.c,$(BUILD)/asan/%.o,$(filter-out cni/main.c,$(CNI_SRC)))
	$(archive)
$(BUILD)/fuzz/libcni.a: $(patsubst %.c,$(BUILD)/fuzz/%.o,$(filter-out cni/main.c,$(CNI_SRC)) $(LOAN_SRC) $(wildcard agent/util/*.c))
	$(archive)

# --- the library of fast paths ---

$(BUILD)/lib/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -fvisibility=hidden -MMD -MP -c $< -o $@
# One object, in which only the public names are seen from outside.
$(BUILD)/libheddle-fastpath.a: $(LIB_OBJ)
	@mkdir -p $(@D)
	$(call say,AR)
	$(Q)ld -r $^ -o $(BUILD)/lib/heddle-fastpath.o
	$(Q)objcopy --localize-hidden $(BUILD)/lib/heddle-fastpath.o
	$(Q)rm -f $@
	$(Q)ar rcs $@ $(BUILD)/lib/heddle-fastpath.o
$(BUILD)/libheddle-fastpath.so: $(LIB_OBJ) agent/fastpath/libheddle-fastpath.map
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) -shared -Wl,-soname,$(LIB_SONAME) -Wl,--version-script,agent/fastpath/libheddle-fastpath.map \
		$(LIB_OBJ) $(LDFLAGS_ALL) -Wl,-z,defs -o $(BUILD)/$(LIB_FILE)
	$(Q)ln -sf $(LIB_FILE) $(BUILD)/$(LIB_SONAME)
	$(Q)ln -sf $(LIB_SONAME) $@

$(BUILD)/fastpath-%: $(BUILD)/obj/tools/fastpath/%.o $(BUILD)/libheddle-fastpath.a
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) -pie $^ $(LDFLAGS_ALL) -o $@
# The same with sanitizers, library and all, for the tests.
$(BUILD)/asan/fastpath-%: $(BUILD)/asan/tools/fastpath/%.o $(LIB_SRC:%.c=$(BUILD)/asan/%.o)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ASAN) $^ $(LDFLAGS_ALL) -o $@

# --- tests ---

UNIT_LIBS := $(if $(UNIT_HELPER_SRC),$(BUILD)/asan/libunit.a) $(BUILD)/asan/libheddle.a
$(filter $(BUILD)/tests/unit/cli%,$(UNIT_BIN)): $(BUILD)/tests/unit/%: $(BUILD)/asan/tests/unit/%.o $(BUILD)/asan/libcli.a $(UNIT_LIBS)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ASAN) $^ $(LDFLAGS_ALL) -lcmocka $(CLI_LIBS) $(AGENT_LIBS) -o $@
$(filter $(BUILD)/tests/unit/cni%,$(UNIT_BIN)): $(BUILD)/tests/unit/%: $(BUILD)/asan/tests/unit/%.o $(BUILD)/asan/libcni.a $(UNIT_LIBS)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ASAN) $^ $(LDFLAGS_ALL) -lcmocka $(AGENT_LIBS) -o $@
$(BUILD)/tests/unit/%_test: $(BUILD)/asan/tests/unit/%_test.o $(UNIT_LIBS)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ASAN) $^ $(LDFLAGS_ALL) -lcmocka $(AGENT_LIBS) -o $@
$(BUILD)/tests/fuzz/cni_fuzz: $(BUILD)/fuzz/tests/fuzz/cni_fuzz.o $(BUILD)/fuzz/libcni.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CLANG) $(subst fuzzer-no-link,fuzzer,$(CFLAGS_FUZZ)) $^ $(LDFLAGS_ALL) $(CNI_LIBS) -o $@
$(BUILD)/fuzz/libdoctor.a: $(patsubst %.c,$(BUILD)/fuzz/%.o,$(wildcard tools/doctor/*.c agent/util/*.c))
	$(archive)
$(BUILD)/tests/fuzz/doctor_fuzz: $(BUILD)/fuzz/tests/fuzz/doctor_fuzz.o $(BUILD)/fuzz/libdoctor.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CLANG) $(subst fuzzer-no-link,fuzzer,$(CFLAGS_FUZZ)) $^ $(LDFLAGS_ALL) $(CLI_LIBS) -o $@
$(BUILD)/tests/fuzz/%_fuzz: $(BUILD)/fuzz/tests/fuzz/%_fuzz.o $(BUILD)/fuzz/libheddle.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CLANG) $(subst fuzzer-no-link,fuzzer,$(CFLAGS_FUZZ)) $^ $(LDFLAGS_ALL) $(AGENT_LIBS) -o $@
$(BUILD)/tests/libverdict.so: $(VERDICT_SRC:%.c=$(BUILD)/obj/%.o) $(BUILD)/libheddle.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) -shared $^ $(LDFLAGS_ALL) $(AGENT_LIBS) -o $@
# Needs nothing of the agent, so that it builds and runs wherever a BPF object does.
$(BUILD)/tests/kernel/%: $(BUILD)/obj/tests/kernel/%.o
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) $^ $(LDFLAGS_ALL) -lbpf -lelf -lz -o $@
$(BUILD)/tests/net/%: $(BUILD)/obj/tests/net/%.o
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) $^ $(LDFLAGS_ALL) -lbpf -lelf -lz -lpthread -lm -o $@
$(BUILD)/tests/differential/%: $(BUILD)/obj/tests/differential/%.o $(BUILD)/libheddle.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) $^ $(LDFLAGS_ALL) $(AGENT_LIBS) -o $@
$(BUILD)/tests/bench/%: $(BUILD)/obj/tests/bench/%.o $(BUILD)/libheddle.a
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS_ALL) $^ $(LDFLAGS_ALL) $(AGENT_LIBS) -o $@

# --- for editors and clang-tidy ---

compile_commands.json: Makefile tools/compile-commands $(wildcard agent/*.c agent/*/*.c tools/heddle/*.c tools/doctor/*.c tools/fastpath/*.c cni/*.c bpf/*.c tests/*/*.c)
	$(call say,GEN)
	$(Q)tools/compile-commands "$(CLANG) $(BPF_CFLAGS)" '$(CC) $(CPPFLAGS_ALL) $(filter-out -Werror,$(CFLAGS_ALL))' \
		$(filter %.c,$^) >$@

.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
