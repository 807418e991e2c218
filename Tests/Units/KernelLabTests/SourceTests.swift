import Glibc
import SystemPackage
import Testing

@testable import CharacterDeviceServer
@testable import KernelLab

@Suite struct SourceTests {
  private func source(_ text: String?) throws -> KernelSource {
    try KernelSource(text, workingDirectory: "/tmp")
  }

  @Test func versionsAndDirectories() throws {
    #expect(try source(nil).kind == .version("6.1"))
    #expect(try source("6.12").name == "linux-6.12")
    #expect(try source("6.1").takesOwnHook)
    for text in ["5.9", "4.19", "6", "6.1.5", "6..1", "99999999999999999999.1"] {
      #expect(throws: LabFailure.self, "\(text)") { try source(text) }
    }
    let directory = try TestDirectory()
    let tree = try source(directory.path)
    #expect(tree.kind == .directory(directory.path))
    #expect(!tree.takesOwnHook)
    #expect(try source("\(directory.path)/.").name == tree.name)
    try directory.write("linux.tar.xz", "x")
    #expect(
      try source("\(directory.path)/linux.tar.xz").kind
        == .archive("\(directory.path)/linux.tar.xz"))
    try directory.write("linux.zip", "x")
    #expect(throws: LabFailure.self) { try source("\(directory.path)/linux.zip") }
    #expect(throws: LabFailure.self) { try source("\(directory.path)/absent") }
  }

  @Test func changesOfATreeSinceItsCopy() throws {
    let directory = try TestDirectory()
    for name in ["Makefile", "kernel/a.c", "kernel/b.c", "kernel/a.o", ".git/config", "vmlinux"] {
      try directory.write(name, "1")
    }
    func manifest() throws -> TreeManifest {
      let tree = try DirectoryEntry(FilePath(directory.path)).open(O_RDONLY | O_DIRECTORY)
      return try TreeManifest(of: tree, given: directory.path)
    }
    let old = try manifest()
    #expect(old.files.keys.sorted() == ["Makefile", "kernel/a.c", "kernel/b.c"])
    let copy = TreeManifest(parsing: old.text)
    #expect(copy == old)
    try directory.write("kernel/a.c", "changed")
    try directory.write("kernel/c.c", "new")
    try directory.write("kernel/product", "new")
    unlink("\(directory.path)/kernel/b.c")
    #expect(try manifest().changes(since: copy) == ["kernel/a.c", "kernel/b.c", "kernel/c.c"])
  }

  @Test func progressTellsTheTimeThatIsLeft() {
    var progress = BuildProgress(title: "Linux 6.1", expected: 400)
    let start = ContinuousClock.now
    for _ in 0..<99 { _ = progress.step("  CC      a.o", now: start) }
    #expect(
      progress.step("  CC      b.o", now: start + .seconds(100))?.hasPrefix(
        "building Linux 6.1: 100 of 400 files, about 5 min left") == true)
    #expect(progress.step("  CC      c.o", now: start + .seconds(101)) == nil)
    #expect(LabTool.isStep("  CC      kernel/fork.o"))
    #expect(LabTool.isStep("  HOSTCC  scripts/basic/fixdep"))
    #expect(!LabTool.isStep("   12 | \tint x;"))
    #expect(!LabTool.isStep("make: Leaving"))
  }

  @Test func messagesHaveTheUsersNames() {
    let output = CompilerOutput(
      names: [
        (built: "../arch/arm64/kvm/virt-walker/hook.c", shown: "my/hook.c"),
        (built: "../", shown: ""),
      ])
    #expect(
      output.lines(of: [
        "../arch/arm64/kvm/virt-walker/hook.c:3:2: error: x\u{1b}[31m",
        "make[4]: *** [../scripts/Makefile.build:250: arch/arm64/kvm/x.o] Error 1",
        "../arch/arm64/kvm/mmio.c:9:1: note: y",
      ]) == ["my/hook.c:3:2: error: x\\x1b[31m", "arch/arm64/kvm/mmio.c:9:1: note: y"])
  }

  @Test func cacheIsMarkedAndNothingElseIsRemoved() throws {
    let directory = try TestDirectory()
    try directory.write("precious", "x")
    let builder = LabBuilder(cache: FilePath(directory.path), user: nil) { _ in }
    #expect(throws: LabFailure.self) { try builder.status() }
    #expect(throws: LabFailure.self) { try builder.clean(nil) }
    try LabCache(path: FilePath(directory.path)).mark()
    try directory.write("linux-6.1/source/file", "x")
    try directory.write("target/file", "x")
    symlink("../target", "\(directory.path)/linux-6.1/link")
    symlink("target", "\(directory.path)/linux-6.2")
    #expect(try builder.status().map(\.name) == ["linux-6.1"])
    LabFiles.remove(FilePath("\(directory.path)/linux-6.1"))
    #expect(access("\(directory.path)/linux-6.1", F_OK) != 0)
    #expect(access("\(directory.path)/target/file", F_OK) == 0)
    #expect(access("\(directory.path)/precious", F_OK) == 0)
  }

  @Test func claimKeepsADirectory() throws {
    let directory = try TestDirectory()
    try directory.write("guest/complete", "")
    let guest = FilePath("\(directory.path)/guest")
    var claim = LabClaim([guest])
    #expect(claim != nil)
    #expect(!LabClaim.removeUnclaimed(guest))
    claim = nil
    #expect(LabClaim.removeUnclaimed(guest))
    #expect(LabClaim([guest]) == nil)
  }
}
