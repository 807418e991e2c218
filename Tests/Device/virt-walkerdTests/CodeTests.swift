import DaemonSupport
import Foundation
import Subprocess
import Testing

/// Tests of a daemon with a user's own code: its start and its end, mistakes in the code, and code that wants more than it may have.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct CodeTests {
  private let name = RunningDaemon.uniqueName()
  private var node: String { "/dev/\(name)" }
  private var tree: String { "/run/\(name)" }
  /// A directory for the sources and the log of a test.
  private var directory: String { "/tmp/\(name)" }
  private var examples: String { "\(repository)/Examples/lab/right" }

  /// Functions of the shell for all tests: `serve OPTIONS` starts the daemon with the directory of the test as the working directory, and
  /// sets `pid`, `guardian`, `worker` and `code`. `finish` stops the daemon, and prints what is left. The compiler's directory is in
  /// `$TMPDIR`, so that other tests do not disturb.
  private var functions: String {
    """
    mkdir -p \(directory)/tmp && chmod 755 \(directory) && chmod 1777 \(directory)/tmp && cd \(directory) || exit 99
    export TMPDIR=\(directory)/tmp
    node=\(node) tree=\(tree)
    serve() {
        $virt_walkerd serve --detach --name \(name) --log-file \(directory)/log "$@" >/dev/null || return
        pid=$($virt_walkerd status | sed -n "s|^$node: .*pid \\\\([0-9]*\\\\).*|\\\\1|p")
        guardian=$(pgrep -P $pid -f 'virt-walkerd code-builder'); worker=$(pgrep -P $guardian); code=$(pgrep -P $worker)
    }
    left() {
        for process in $guardian $worker $code; do [ ! -e /proc/$process/exe ] || echo "process $process is left"; done
        ls -d tmp/*
    }
    finish() { $virt_walkerd stop --name \(name) && left 2>/dev/null; }

    """
  }

  private func run(
    _ files: [String: String] = [:], _ line: String, limit: Duration = .seconds(300)
  ) async throws -> Outcome {
    try FileManager.default.createDirectory(
      atPath: directory, withIntermediateDirectories: true)
    for (name, text) in files {
      try text.write(toFile: "\(directory)/\(name)", atomically: true, encoding: .utf8)
    }
    let outcome = try await shell(functions + line, limit: limit)
    try FileManager.default.removeItem(atPath: directory)
    return outcome
  }

  /// A hook with the lines of io_mem_abort. `value` is the byte of a store.
  private func hook(_ lines: String, outside: String = "") -> String {
    """
    #include <linux/kvm_host.h>
    #include <asm/kvm_emulate.h>
    \(outside)
    int io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa)
    {
    	u8 value = vcpu_get_reg(vcpu, kvm_vcpu_dabt_get_rd(vcpu));
    	(void)value;
    \(lines)
    	kvm_incr_pc(vcpu);
    	return 1;
    }

    """
  }

  /// A module with the lines of its init function and of its write.
  private func module(initialize: String = "", write: String = "") -> String {
    """
    #include <linux/module.h>
    #include <linux/fs.h>
    #include <linux/miscdevice.h>
    #include <linux/uaccess.h>

    static char letter;

    static ssize_t walker_read(struct file *file, char __user *buf, size_t count, loff_t *pos)
    {
    	return copy_to_user(buf, &letter, 1) ? -EFAULT : 1;
    }

    static ssize_t walker_write(struct file *file, const char __user *buf, size_t count, loff_t *pos)
    {
    	if (copy_from_user(&letter, buf, 1))
    		return -EFAULT;
    \(write)
    	return 1;
    }

    static const struct file_operations fops = { .owner = THIS_MODULE, .read = walker_read, .write = walker_write };
    static struct miscdevice walker = { .minor = MISC_DYNAMIC_MINOR, .name = "virt_walker", .fops = &fops };

    static int __init walker_init(void)
    {
    \(initialize)
    	return misc_register(&walker);
    }

    static void __exit walker_exit(void)
    {
    	misc_deregister(&walker);
    }

    module_init(walker_init);
    module_exit(walker_exit);
    MODULE_LICENSE("GPL");

    """
  }

  // MARK: - Start and end

  /// The clang of the Swift toolchain is that of the system in a namespace of mounts where gcc cannot be executed.
  @Test func clangIsTakenIfThereIsNoGCC() async throws {
    let result = try await run(
      [:],
      """
      swift=$(readlink -f "$(command -v swift)") gcc=$(readlink -f "$(command -v gcc)")
      export toolchain=${swift%/bin/*} gcc
      unshare -m sh -c '
          mount --bind /dev/null "$gcc" && mount --bind "$toolchain" /usr/local || exit 99
          $virt_walkerd serve --detach --name \(name) --hook \(examples)/walk-callback.c --hook-function virt_walker_mmio \\
              --module \(examples)/module-chrdev.c >/dev/null || exit 98
          printf A >\(node); head -c1 \(node); echo; ! gcc --version 2>/dev/null || echo "gcc is there"
          $virt_walkerd stop --name \(name)'
      left
      """)
    #expect(result.output.hasPrefix("A\n") && !result.output.contains("gcc"), "\(result.output)")
    #expect(!result.errors.contains("warning: "), "\(result.errors)")
  }

  @Test func byteGoesThroughModuleAndHook() async throws {
    let result = try await run(
      [:],
      """
      serve --module \(examples)/module-chrdev.c --hook \(examples)/walk-callback.c --hook-function virt_walker_mmio || exit 98
      printf A >$node; head -c1 $node; echo
      $virt_walkerd status | grep "^$node:" | grep -o 'module .*virt_walker_mmio\\|module [^ ]*module-chrdev.c, hook [^ ]*walk-callback.c'
      ps -o user= -p $guardian,$worker,$(echo $code | tr ' ' ,) | sort -u
      for process in $code; do sed -n '/^CapEff\\|^NoNewPrivs\\|^Seccomp:/p' /proc/$process/status; ls /proc/$process/fd | wc -l; done
      finish
      """)
    let lines = result.output.split(separator: "\n").map(String.init)
    try #require(lines.count == 11, "\(result.output)\(result.errors)")
    #expect(lines[0] == "A")
    #expect(
      lines[1] == "module \(examples)/module-chrdev.c, hook \(examples)/walk-callback.c")
    #expect(lines[2] != "root")
    for index in [3, 7] {
      #expect(lines[index] == "CapEff:\t0000000000000000")
      #expect(lines[index + 1] == "NoNewPrivs:\t1")
      #expect(lines[index + 2] == "Seccomp:\t2")
      #expect(lines[index + 3] == "5" || lines[index + 3] == "6", "\(lines[index + 3]) descriptors")
    }
    try await expectNothingLeft(of: node)
  }

  @Test func directoryIsOneModule() async throws {
    let result = try await run(
      ["test.c": "#include <stdio.h>\nint main(void)\n{\n\treturn 0;\n}\n"],
      """
      cp -r \(examples)/module-two-files two && mv test.c two/
      serve --module two && printf A >$node && head -c1 $node; echo; grep -o 'test.c has a main function' log
      finish
      """)
    #expect(result.output == "A\ntest.c has a main function\n", "\(result.errors)")
    try await expectNothingLeft(of: node)
  }

  @Test(arguments: ["daemon", "guardian", "worker", "guardian worker", "code"])
  func killLeavesNothing(victims: String) async throws {
    let kill =
      victims == "daemon"
      ? "kill_served $pid"
      : "kill -KILL \(victims.split(separator: " ").map { "$\($0)" }.joined(separator: " "))"
    let result = try await run(
      ["x.c": hook("")],
      """
      serve --hook x.c || exit 98
      \(kill)
      case '\(victims)' in daemon) ;; *) printf A >$node 2>/dev/null; $virt_walkerd stop --name \(name) ;; esac
      for process in $guardian $worker $code; do soon test ! -e /proc/$process/exe; done
      # If both were killed, the next builder removes the directory.
      case '\(victims)' in 'guardian worker') serve --hook x.c && $virt_walkerd stop --name \(name) ;; esac
      nothing() { [ -z "$(ls tmp)" ]; }
      soon nothing && echo nothing is left
      """)
    #expect(result.output == "nothing is left\n", "\(result.errors)")
    try await expectNothingLeft(of: node)
  }

  /// The tree of a kernel has the files of the diff only.
  @Test func diffIsAHook() async throws {
    let result = try await run(
      ["mmio.c": hook("\tprintk(\"old\\n\");")],
      """
      mkdir -p tree/arch/arm64/kvm tree/arch/arm64/include/asm && mv mmio.c tree/arch/arm64/kvm/ || exit 99
      printf 'VERSION = 5\\nPATCHLEVEL = 15\\n' >tree/Makefile
      printf '#ifndef X\\n#define X\\n#include <not/there.h>\\n#endif\\n' >tree/arch/arm64/include/asm/kvm_pgtable.h
      cp -r tree new
      sed -i 's/printk("old/printk(TEXT "/; s/.*kvm_emulate.h.*/&\\n#include <asm\\/kvm_pgtable.h>/' new/arch/arm64/kvm/mmio.c
      sed -i 's/#define X/&\\n#define TEXT "of the diff"/' new/arch/arm64/include/asm/kvm_pgtable.h
      diff -ru tree new | sed 's,^--- tree,--- a,; s,^+++ new,+++ b,' >my.patch
      serve --patch my.patch --linux tree || exit 98
      printf A >$node; grep -o 'of the diff' $tree/host/dmesg; finish
      sed -i 's/old/other/' tree/arch/arm64/kvm/mmio.c
      $virt_walkerd serve --name \(name) --patch my.patch --linux tree; echo $?
      """)
    #expect(result.output == "of the diff\n65\n", "\(result.errors)")
    #expect(result.errors.contains("my.patch does not fit the tree tree"), "\(result.errors)")
    try await expectNothingLeft(of: node)
  }

  /// From Linux 6.2 on, the visitor of a walk gets a context; from Linux 6.4 on, class_create() has one argument.
  @Test(arguments: ["6.12", "7.3"])
  func versionSelectsTheFunctions(version: String) async throws {
    let module = """
      #include <linux/module.h>
      #include <linux/device.h>
      #include <linux/version.h>

      static struct class *lab;

      static int __init lab_init(void)
      {
      	if (LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0))
      		return -EINVAL;
      	lab = class_create("lab");
      	return PTR_ERR_OR_ZERO(lab);
      }

      static void __exit lab_exit(void)
      {
      	class_destroy(lab);
      }

      module_init(lab_init);
      module_exit(lab_exit);
      MODULE_LICENSE("GPL");

      """
    let result = try await run(
      ["class.c": module],
      """
      hook="--hook \(examples)/walk-context.c --hook-function virt_walker_mmio"
      serve --linux \(version) $hook || exit 98
      printf A >$node; head -c1 $node; echo; finish
      $virt_walkerd serve --name \(name) $hook 2>/dev/null; echo $?
      serve --linux \(version) --module class.c && finish
      $virt_walkerd serve --name \(name) --module class.c 2>/dev/null; echo $?
      """)
    #expect(result.output == "A\n65\n65\n", "\(result.errors)")
    try await expectNothingLeft(of: node)
  }

  @Test func manyNodesHaveProcessesOfTheirOwn() async throws {
    let result = try await run(
      ["x.c": hook("\tif (value == 'X')\n\t\t*(volatile int *)8 = 1;")],
      """
      $virt_walkerd serve --detach --name \(name) --count 3 --tree none --hook x.c --log-file log >/dev/null || exit 98
      printf X >${node}1 2>/dev/null || echo 1 fails
      for number in 0 2; do printf A >$node$number && echo $number works; done
      $virt_walkerd stop --name \(name)0; ls tmp
      """)
    #expect(result.output == "1 fails\n0 works\n2 works\n", "\(result.errors)")
  }

  // MARK: - Code that does not start

  @Test(arguments: [
    ("int x = ;\n", "x.c:1:9: error: expected expression before ';' token"),
    (
      "#include <linux/module.h>\n#include <linux/gpio.h>\n",
      "x.c:2: virt-walker has no <linux/gpio.h>: docs/your-code.md lists the headers"
    ),
    (
      "#include <linux/module.h>\nint f(void)\n{\n\treturn gpio_get_value(1);\n}\n",
      "x.c:4: virt-walker has no function gpio_get_value()"
    ),
    ("#include <stdio.h>\n", "x.c:1: <stdio.h> is a header of programs"),
  ])
  func errorsOfTheCompilerAreShown(source: String, message: String) async throws {
    let result = try await run(
      ["x.c": source],
      "$virt_walkerd serve --name \(name) --module x.c; echo $?; ls tmp"
    )
    #expect(result.output == "65\n", "\(result.errors)")
    #expect(result.errors.contains(message), "\(result.errors)")
    #expect(
      result.errors.hasSuffix(
        "virt-walkerd: the code does not compile: the lines above say where\n"))
    try await expectNothingLeft(of: node)
  }

  @Test func initErrorEndsTheStart() async throws {
    let result = try await run(
      ["x.c": module(initialize: "\tif (1)\n\t\treturn -ENODEV;")],
      "$virt_walkerd serve --name \(name) --module x.c; echo $?; ls tmp")
    #expect(result.output == "65\n", "\(result.errors)")
    #expect(result.errors.contains("-19 (ENODEV)"), "\(result.errors)")
    try await expectNothingLeft(of: node)
  }

  @Test(arguments: [
    (
      "--hook none.c",
      "cannot read none.c: No such file or directory: give --hook a file that exists"
    ),
    ("--module /etc/passwd", "/etc/passwd is not a C file"),
    ("--module tmp", "tmp has no C file of a module"),
    ("--patch x.c --linux /no", "--linux /no: there is no such directory"),
    ("--patch x.c --linux 6.1", "apt-get install linux-source-6.1"),
    ("--hook x.c --linux 5.9", "has the functions of Linux 5.10 to 7.3"),
  ])
  func unusableFilesAreTold(options: String, message: String) async throws {
    let result = try await run(
      ["x.c": ""], "$virt_walkerd serve --name \(name) \(options); echo $?; ls tmp")
    // The package of the kernel's source may be installed.
    #expect(
      result.errors.contains(message) || result.errors.contains("unpack the kernel's source"),
      "\(result.errors)")
    #expect(result.output == "65\n")
    try await expectNothingLeft(of: node)
  }

  @Test(arguments: [
    "--hook x.c --patch y --linux z", "--patch y", "--hook-function f", "--sanitize",
    "--watch-source",
    "--linux /tmp", "--module-parameters a=1", "--hook x.c --hook-function 1f", "--hook ''",
  ])
  func combinationsWithoutAMeaningAreWrongUsage(options: String) async throws {
    let result = try await shell("$virt_walkerd serve --name \(name) \(options)")
    #expect(result.status == .exited(64), "\(result.errors)")
  }

  // MARK: - Mistakes

  @Test func crashIsToldAndResetGoesOn() async throws {
    let result = try await run(
      ["x.c": module(write: "\tif (letter == 'X')\n\t\t*(volatile int *)8 = 1;")],
      """
      serve --module x.c || exit 98
      exec 3<>$node
      printf A >&3; head -c1 $node; echo
      printf X >&3 2>/dev/null || echo EIO
      head -c1 $node 2>/dev/null || echo EIO
      grep -o 'x.c:18: walker_write: Unable to handle kernel NULL pointer dereference' log
      $virt_walkerd status | grep -A 2 "^$node" | grep -o 'the last mistake of its code: x.c:18'
      grep -o 'last: x.c:18' $tree/code
      echo 1 >$tree/reset
      printf B >&3; head -c1 <&3; echo
      finish
      """)
    #expect(
      result.output == """
        A
        EIO
        EIO
        x.c:18: walker_write: Unable to handle kernel NULL pointer dereference
        the last mistake of its code: x.c:18
        last: x.c:18
        B

        """, "\(result.errors)")
    try await expectNothingLeft(of: node)
  }

  @Test func rmmodReportsLeaks() async throws {
    let result = try await run(
      [:],
      """
      serve --module \(repository)/Examples/lab/wrong/module-missing-iounmap.c || exit 98
      finish; grep -c 'iounmap() is missing' log
      """)
    #expect(result.output == "1\n", "\(result.errors)")
  }

  @Test func logHasTheLinesOfTheInitFunction() async throws {
    let result = try await run(
      ["x.c": module(initialize: "\tpr_info(\"hello\\n\");")],
      """
      serve --module x.c --log-level info || exit 98
      echo 1 >$tree/reset; finish; grep '^guest: ' log
      """)
    #expect(result.output == "guest: hello\nguest: hello\n", "\(result.errors)")
  }

  @Test func changedSourceIsReloaded() async throws {
    let result = try await run(
      ["x.c": module(write: "\tpr_info(\"first\\n\");")],
      """
      serve --module x.c --watch-source || exit 98
      exec 3<>$node
      printf A >&3
      sed -i s/first/second/ x.c; soon grep -q 'the new code runs' log
      printf B >&3; head -c1 <&3; echo
      echo 'int x = ;' >>x.c; soon grep -q 'the old code goes on' log
      grep -o 'x.c:[0-9]*:9: error: expected expression' log | sed 's/:[0-9]*:/:N:/'
      printf C >&3; head -c1 <&3; echo
      sed -i '$d' x.c; sed -i s/second/third/ x.c;
      again() { [ $(grep -c 'the new code runs' log) -ge 2 ]; }; soon again
      printf D >&3
      grep -o 'first\\|second\\|third' $tree/guest/dmesg
      finish
      """)
    #expect(
      result.output == "B\nx.c:N:9: error: expected expression\nC\nfirst\nsecond\nsecond\nthird\n",
      "\(result.errors)")
    try await expectNothingLeft(of: node)
  }

  // MARK: - Hostile code

  /// The file is one of root's, or of another user, or readable for all: the compiler sees none of them.
  @Test(arguments: ["/etc/shadow", "/etc/passwd", "../secret.h", "link.h"])
  func sourceReadsNoOtherFile(file: String) async throws {
    let result = try await run(
      ["x.c": "", "secret.h": "the_secret\n"],
      """
      mkdir code; ln -s \(directory)/secret.h code/link.h
      printf '#include "\(file)"\\n' >code/x.c; $virt_walkerd serve --name \(name) --hook code/x.c; echo $?
      printf '__asm__(".incbin \\\\"\(file)\\\\"");\\n' >code/x.c; $virt_walkerd serve --name \(name) --hook code/x.c; echo $?
      printf '#include "\(directory)/secret.h"\\n' >code/x.c; $virt_walkerd serve --name \(name) --hook code/x.c; echo $?
      ln -sf /etc/shadow code/x.c; $virt_walkerd serve --name \(name) --hook code/x.c; echo $?
      chown -h 65534 code/x.c; $virt_walkerd serve --name \(name) --hook code/x.c; echo $?
      """)
    #expect(result.output == "65\n65\n65\n65\n65\n", "\(result.errors)")
    #expect(!result.errors.contains("the_secret"), "\(result.errors)")
    #expect(!result.errors.contains("root:"), "\(result.errors)")
    #expect(result.errors.contains("code/x.c is a symbolic link: name the file itself"))
  }

  @Test func endlessCompilationEnds() async throws {
    // Each macro has sixteen of the one before: the last one has more words than the compiler may have memory or time for.
    let macros = (1...9).map { number in
      "#define A\(number) \(String(repeating: "A\(number - 1) ", count: 16))"
    }
    let result = try await run(
      [
        "x.c": (["#define A0 x"] + macros + ["A9"]).joined(separator: "\n"),
        "y.c": "#include \"y.c\"\n",
      ],
      """
      for file in x.c y.c; do $virt_walkerd serve --name \(name) --hook $file 2>errors; echo $?; wc -l <errors; done
      ls tmp
      """)
    let lines = result.output.split(separator: "\n").compactMap { Int($0) }
    try #require(lines.count == 4, "\(result.output)\(result.errors)")
    #expect(lines[0] == 65 && lines[2] == 65)
    #expect(lines[1] < 150 && lines[3] < 150)
  }

  /// A debugger can stop the code for longer than the 10 s that a call may take.
  @Test func aStoppedProcessIsNotHung() async throws {
    let result = try await run(
      ["x.c": hook("")],
      """
      serve --hook x.c || exit 98
      kill -STOP $code; printf A >$node & writer=$!; sleep 12; kill -CONT $code; wait $writer; echo $?
      head -c1 $node; echo; finish
      """)
    #expect(result.output == "0\nA\n", "\(result.errors)")
  }

  /// A call that the runtime's filter does not allow ends the process: getppid, fork, open, kill, socket.
  @Test(arguments: [110, 57, 2, 62, 41])
  func systemCallEndsTheCode(number: Int) async throws {
    #if arch(x86_64)
      let call = """
        static long call(long number)
        {
        	long result;

        	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(0), "S"(0), "d"(0) : "rcx", "r11", "memory");
        	return result;
        }
        """
      let result = try await run(
        ["x.c": hook("\tif (value == 'X')\n\t\tcall(\(number));", outside: call)],
        """
        serve --hook x.c || exit 98
        printf A >$node && echo works
        printf X >$node 2>/dev/null || echo EIO
        echo 1 >$tree/reset; printf A >$node && echo works; grep -c -i 'system call\\|SIGSYS' log
        finish
        """)
      #expect(result.output == "works\nEIO\nworks\n1\n", "\(result.errors)")
      try await expectNothingLeft(of: node)
    #endif
  }

  /// A hook that fills the tables, the registers and the channel with anything, at each access or all the time. Each file of the tree is
  /// read, and each kind of step is performed; the daemon goes on, and `reset` gives a working machine.
  @Test func hostileHookDoesNotEndTheDaemon() async throws {
    let files =
      "walk walk.svg pte stage2_page_tables stage2_levels ipa_range trace guest/dmesg host/dmesg code stats metrics control"
    let steps = [
      "guest ldr w0,[0x40000000]", "guest str w0,[0x40200000] x0=7", "guest fetch 0x40000000",
      "guest strb w0,[0x0b000000] x0=0x5a", "guest ldrb w0,[0x0b000001]",
      "host madvise dontneed 0x40000000 0x400000",
      "host madvise populate-write 0x40000000 0x400000",
      "guest ldr w0,[0x40001000]", "host madvise mergeable 0x40000000 0x400000", "host ksm",
      "host fork", "guest str w0,[0x40000000] x0=1", "host end-fork", "host age 0x40000000",
      "host dirty-log on", "guest str w0,[0x40002000] x0=1", "host dirty-log get",
      "host slot delete", "host slot add", "guest ldr w0,[0x40000000]",
    ]
    let result = try await run(
      ["x.c": Self.hostileHook],
      """
      serve --hook x.c || exit 98
      for file in \(files); do [ -e $tree/$file ] || echo "$file is missing"; done
      look() { for file in \(files); do timeout -s KILL 60 cat $tree/$file >/dev/null 2>&1 || echo "$kind: $file is not read"; done; }
      for kind in R T P O E B Z G V C W; do
          echo 1 >$tree/reset || echo "$kind: no reset"
          printf A >$node && [ $(head -c1 $node) = A ] || echo "$kind: no machine"
          printf $kind >$node 2>/dev/null
          look
          timeout -s KILL 200 sh -c "printf '%s\n' '\(steps.joined(separator: "' '"))' >$tree/control" || echo "$kind: no steps"
          printf B >$node 2>/dev/null; timeout -s KILL 60 head -c1 $node >/dev/null 2>&1
          look
          for byte in 1 2 3 4 5 6 7 8; do printf $byte >$node; head -c1 $node; cat $tree/walk $tree/stage2_page_tables; done >/dev/null 2>&1
          kill -0 $pid || echo "$kind has ended the daemon"
      done
      grep -q 'left the tables inconsistent' log && echo told
      grep -q 'x.c:[0-9]*: ' $tree/code && echo told
      finish
      """)
    #expect(result.output == "told\ntold\n", "\(result.output)\(result.errors)")
    try await expectNothingLeft(of: node)
  }

  /// The byte that the guest hides selects what the hook does from then on.
  private static let hostileHook = """
    #include <linux/kvm_host.h>
    #include <asm/kvm_emulate.h>
    #include <asm/kvm_pgtable.h>

    /* The first block of memory for tables: 32 pages at this physical address. */
    #define WORDS	(32 * 512)
    #define BASE	0x100000000ULL

    /* The runtime's, which the hook can reach: turn, log_length, and message with its kind, length and result. */
    extern struct channel *runtime_channel;
    #define CHANNEL		((u8 *)runtime_channel)
    #define TURN		(*(volatile u32 *)(CHANNEL + 4))
    #define LOG_LENGTH	(*(volatile u32 *)(CHANNEL + 20))
    #define KIND		(*(volatile u32 *)(CHANNEL + 24))
    #define LENGTH		(*(volatile u32 *)(CHANNEL + 28))
    #define RESULT		(*(volatile u64 *)(CHANNEL + 32))

    static u64 state = 88172645463325252ULL;
    static u64 current_pgd;
    static u8 kind, byte;

    static u64 number(void)
    {
    	state ^= state << 13;
    	state ^= state >> 7;
    	state ^= state << 17;
    	return state;
    }

    static void fill(volatile u64 *words)
    {
    	for (u64 i = 0; i < WORDS; i++) {
    		u64 attributes = number() & 0xfff0000000000ffcULL;

    		switch (kind == 'W' ? "RTPOEBZ"[number() % 7] : kind) {
    		case 'R':
    			words[i] = number();
    			break;
    		case 'T':
    			words[i] = (BASE + i / 512 * 4096) | attributes | 3;
    			break;
    		case 'P':
    			words[i] = BASE | 3;
    			break;
    		case 'O':
    			words[i] = number() | 3;
    			break;
    		case 'E':
    			words[i] = (BASE + (number() % 40) * 4096) | attributes | 3;
    			break;
    		case 'B':
    			words[i] = (number() & ~2ULL) | 1;
    			break;
    		case 'Z':
    			words[i] = 0;
    			break;
    		}
    	}
    }

    static void send(u32 message, u64 result)
    {
    	KIND = message;
    	RESULT = result;
    	__sync_synchronize();
    	TURN = 0;
    	/* In the meantime, the tables change. */
    	while (TURN == 0)
    		if (kind == 'W')
    			fill((void *)current_pgd);
    }

    int io_mem_abort(struct kvm_vcpu *vcpu, phys_addr_t fault_ipa)
    {
    	int rt = kvm_vcpu_dabt_get_rd(vcpu);
    	u8 value = vcpu_get_reg(vcpu, rt);

    	current_pgd = (u64)vcpu->arch.hw_mmu->pgt->pgd;
    	if (!kind && kvm_vcpu_dabt_iswrite(vcpu) && fault_ipa == 0x0b000000) {
    		byte = value;
    		if (value != 'A')
    			kind = value;
    	} else if (!kind) {
    		vcpu_set_reg(vcpu, rt, byte);
    	}
    	if (kind && kind != 'G' && kind != 'V' && kind != 'C')
    		fill((void *)current_pgd);
    	if (kind == 'W')
    		for (;;)
    			send(101, 1);
    	if (kind == 'C')
    		for (int i = 0; i < 2000; i++) {
    			LENGTH = number() % 4 ? number() % (1 << 20) : number();
    			LOG_LENGTH = number() % 50 ? number() % 64 * 8 : number();
    			for (int j = 0; j < 64; j++)
    				CHANNEL[32 + number() % 4096] = number();
    			send(number() % 8 ? 102 + number() % 8 : number(), number());
    		}
    	/* Any registers. */
    	if (kind == 'G') {
    		for (int i = 0; i < 31; i++)
    			vcpu_gp_regs(vcpu)->regs[i] = number();
    		*vcpu_pc(vcpu) = number() % 4 ? 0x80000000 : number();
    	}
    	/* Back to the instruction of the step, for ever. */
    	if (kind == 'V' && fault_ipa == 0x0c000000) {
    		*vcpu_pc(vcpu) -= 4;
    		return 1;
    	}
    	kvm_incr_pc(vcpu);
    	return 1;
    }

    """

  /// A module that allocates for ever gets NULL in the end, with a finding, and goes on. The runtime gives it 96 MiB.
  @Test func memoryIsBounded() async throws {
    let result = try await run(
      [
        "x.c": module(
          write: """
            	if (letter == 'X')
            		for (;;) {
            			char *all = kmalloc(1 << 20, GFP_KERNEL);
            			if (!all)
            				return -ENOMEM;
            			memset(all, 1, 1 << 20);
            		}
            """
        ).replacing("<linux/fs.h>", with: "<linux/slab.h>")
      ],
      """
      serve --module x.c || exit 98
      printf X | LC_ALL=C dd of=$node bs=1 conv=notrunc 2>&1 | grep -o 'Cannot allocate memory'
      for process in $pid $code; do awk '/^VmHWM/ { print ($2 > 80000), ($2 < 130000) }' /proc/$process/status; done
      grep -o 'x.c:[0-9]*: walker_write: out of memory: 1048576 bytes are wanted' log
      printf A >$node && head -c1 $node; echo
      finish
      """)
    // The daemon has less than the module, and the module comes to its limit.
    #expect(
      result.output == """
        Cannot allocate memory
        0 1
        1 1
        x.c:19: walker_write: out of memory: 1048576 bytes are wanted
        A

        """, "\(result.output)\(result.errors)")
    try await expectNothingLeft(of: node)
  }
}
