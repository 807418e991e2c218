import DaemonSupport
import Foundation
import SystemPackage
import Testing

/// The device at its node, on this machine's FUSE.
@Suite(.endingDaemons, .timeLimit(.minutes(15))) struct DeviceTests {
  @Test(arguments: ["cortex-a72", "cortex-a76"], ["huge", "anonymous"])
  func checkDevice(cpu: String, backing: String) async throws {
    let daemon = try await RunningDaemon("--cpu \(cpu) --backing \(backing)")
    let fresh = try await shell("head -c1 \(daemon.node) | od -An -tx1")
    #expect(fresh.output == " 00\n")
    let check = try await shell(
      "\(repository)/scripts/check-device \(daemon.node)", limit: .seconds(300))
    #expect(report(tap: check.output, from: "check-device") >= 31)
    #expect(check.succeeded, "\(check.errors)")
    try await daemon.stop()
  }

  /// The two lines of the README.
  @Test func echoAndHead() async throws {
    let daemon = try await RunningDaemon()
    let result = try await shell("echo -n A > \(daemon.node); head -c1 \(daemon.node)")
    #expect(result.output == "A")
    try await daemon.stop()
  }

  /// Each policy serves the device, and an idle server sleeps. The last close may reach the server late, so the test
  /// waits until the serving thread does not run for half a second.
  @Test(arguments: ["auto", "never", "200"])
  func polling(policy: String) async throws {
    let daemon = try await RunningDaemon("--poll \(policy)")
    let pid = try await daemon.pid
    let result = try await shell(
      """
      for i in $(seq 200); do printf A >\(daemon.node); head -c1 \(daemon.node); done | tr -d A | wc -c
      runs() { cut -d' ' -f14,15 /proc/\(pid)/stat; grep ctxt_switches /proc/\(pid)/status; }
      sleeps() { before=$(runs); sleep 0.5; [ "$before" = "$(runs)" ]; }
      soon sleeps
      echo idle
      """)
    #expect(result.output == "0\nidle\n")
    try await daemon.stop()
  }

  @Test func systemCallsAnswerAsTheTableSays() async throws {
    let daemon = try await RunningDaemon()
    let probe = try await Probe.shared.path()
    let check = try await shell(
      "\(repository)/scripts/ci/check-file-operations \(daemon.node) fuse \(probe)",
      limit: .seconds(300))
    #expect(report(tap: check.output, from: "check-file-operations") >= 80)
    #expect(check.succeeded, "\(check.errors)")
    try await daemon.stop()
  }

  /// The commands of GNU, uutils, busybox and toybox, which copy in different ways: with read(2), splice(2) and sendfile(2).
  @Test func everydayTools() async throws {
    let daemon = try await RunningDaemon()
    let check = try await shell(
      "\(repository)/scripts/ci/check-tools \(daemon.node) \(try await EverydayTools.shared.path())",
      limit: .seconds(300))
    #expect(report(tap: check.output, from: "check-tools") >= 80)
    #expect(check.succeeded, "\(check.errors)")
    try await daemon.stop()
  }

  /// The two lines of the README, and all of check-device, on a system whose commands are those of uutils or busybox.
  @Test(arguments: ["uutils", "busybox"])
  func otherToolsInFrontOfThePath(system: String) async throws {
    let daemon = try await RunningDaemon()
    let path = "PATH=\(try await EverydayTools.shared.path())/\(system):$PATH"
    let result = try await shell(
      "\(path); env echo -n A > \(daemon.node); head -c1 \(daemon.node); cat \(daemon.node) | head -c2"
    )
    #expect(result.output == "AAA")
    let check = try await shell(
      "\(path) \(repository)/scripts/check-device \(daemon.node)", limit: .seconds(300))
    #expect(report(tap: check.output, from: "check-device") >= 31)
    #expect(check.succeeded, "\(check.errors)")
    try await daemon.stop()
  }

  /// A client that copies with splice(2) never finds an end of the file, whatever other clients do to the node. stat(2)
  /// gives the size 0 all the time.
  @Test func nodeIsNeverAtItsEnd() async throws {
    let daemon = try await RunningDaemon()
    let result = try await shell(
      """
      node=\(daemon.node) tools=\(try await EverydayTools.shared.path())
      go=$(mktemp)
      while [ -e $go ]; do echo -n A >$node; stat -c %s $node; chmod 600 $node; echo -n A >>$node; done >$go.sizes &
      for i in $(seq 300); do
          $tools/uutils/head -c 3 $node | cat
          $tools/busybox/cat $node | head -c 3
          exec 3<$node
          : >$node
          $tools/uutils/head -c 3 <&3 | cat
          exec 3<&-
      done | tr -d '\\0A' | wc -c
      for i in $(seq 300); do $tools/uutils/head -c 3 $node | cat; done | wc -c
      rm $go
      wait
      sort -u $go.sizes
      rm $go.sizes
      """)
    #expect(result.output == "0\n900\n0\n", "\(result.errors)")
    try await daemon.stop()
  }

  /// Commands whose answer differs from the answer for a character device: the rows of docs/file-operations.md.
  @Test func commandsThatTakeTheNodeForAFile() async throws {
    let daemon = try await RunningDaemon()
    let result = try await shell(
      """
      node=\(daemon.node) tools=\(try await EverydayTools.shared.path())
      printf A >$node
      echo "hexdump -s: $(hexdump -s 2 -n 1 -C $node)"
      echo "hexdump: $(hexdump -n 1 -e '1/1 "%02x"' $node)"
      echo "file: $(file -b $node)"
      printf B | $tools/gnu/dd of=$node bs=1 seek=1 2>&1 | head -n 1 | sed 's/.*\\(failed\\).*: /\\1: /'
      head -c1 $node; echo
      printf C | $tools/gnu/dd of=$node bs=1 seek=1 conv=notrunc 2>&1 | head -n 1
      head -c1 $node; echo
      bash -c "read -t 0.2 -n1 x <$node; echo \\"read -n1: \\$? \\$x\\""
      # The time limit of read ends long before the newline comes.
      (sleep 1; echo >$node) &
      bash -c "read -t 0.2 x <$node; echo \\"read: \\$?\\""
      wait
      """)
    #expect(
      result.output == """
        hexdump -s: 
        hexdump: 41
        file: empty
        failed: Invalid argument
        B
        1+0 records in
        C
        read -n1: 0 C
        read: 0

        """, "\(result.errors)")
    try await daemon.stop()
  }

  /// If a tool of the system is missing or broken, the first line names the tool, and nothing is written to the node.
  @Test(arguments: [
    ("head", "", "cannot read a device, not even /dev/zero"),
    ("dd", "", "cannot read a device, not even /dev/zero"),
    ("cat", "", "cannot read a device, not even /dev/zero"),
    ("od", "", "does not print bytes in hex"),
    ("fold", "", "does not fold lines"),
    ("head", "/dev/zero", "it gets nothing, and dd gets the byte"),
    ("dd", "/dev/zero", "it gets nothing, and head gets the byte"),
  ])
  func checkDeviceNamesABrokenTool(tool: String, able: String, problem: String) async throws {
    let daemon = try await RunningDaemon()
    let result = try await shell(
      """
      printf S >\(daemon.node)
      directory=$(mktemp -d)
      printf '#!/bin/sh\\ncase "$*" in *%s*) exec %s "$@" ;; esac\\n' '\(able.isEmpty ? "nothing" : able)' $(command -v \(tool)) >$directory/\(tool)
      chmod 755 $directory/\(tool)
      (PATH=$directory:$PATH; \(repository)/scripts/check-device \(daemon.node))
      echo $?
      rm -r $directory
      head -c1 \(daemon.node)
      """)
    let lines = result.output.split(separator: "\n")
    #expect(lines.count == 3)
    #expect(lines[0].hasPrefix("Bail out! \(tool) (/"))
    #expect(lines[0].contains(problem))
    #expect(lines[0].contains("in front of PATH"))
    #expect(lines[1...] == ["1", "S"])
    try await daemon.stop()
  }

  /// check-device fails for a plain file. This test shows that check-device can fail.
  @Test func checkDeviceRefusesAPlainFile() async throws {
    let file = "/tmp/\(RunningDaemon.uniqueName())"
    let check = try await shell(
      ": >\(file); \(repository)/scripts/check-device \(file); status=$?; rm \(file); exit $status")
    #expect(!check.succeeded)
    #expect(check.output.contains("\nnot ok "))
  }
}
