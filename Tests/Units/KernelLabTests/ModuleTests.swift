import Glibc
import Testing

@testable import KernelLab

@Suite struct ModuleTests {
  private let directory: TestDirectory

  init() throws { directory = try TestDirectory() }

  private func read(_ name: String) throws -> [String: String] {
    let module = try ModuleSources(at: name, workingDirectory: directory.path)
    return Dictionary(
      uniqueKeysWithValues: module.files.map {
        ($0.name, String(decoding: $0.bytes, as: UTF8.self))
      })
  }

  @Test func fileIsTakenWithTheHeadersBesideIt() throws {
    try directory.write("my.c", "c")
    try directory.write("my.h", "h")
    try directory.write("other.c", "c")
    try directory.write("Makefile", "all:\n\ttouch /tmp/x\n")
    #expect(try read("my.c") == ["my.c": "c", "my.h": "h", "Kbuild": "obj-m := my.o\n"])
  }

  @Test func onlySourcesOfADirectoryAreTaken() throws {
    for name in [
      "a.c", "a.h", "a.o", "a.mod.c", "x.ko", ".hidden.c", "sub/b.c", "run.sh", "$(x).c",
    ] {
      try directory.write("m/\(name)", "x")
    }
    try directory.write("m/Kbuild", "obj-m := a.o\n")
    try directory.write("secret.c", "x")
    symlink("../secret.c", "\(directory.path)/m/link.c")
    #expect(Set(try read("m").keys) == ["a.c", "a.h", "sub/b.c", "Kbuild"])
  }

  @Test func filesOfADirectoryWithoutRulesAreOneModule() throws {
    try directory.write("two/main.c", "int f(void) { return 0; }")
    try directory.write("two/regs.c", "int g(void) { return 0; }")
    try directory.write("two/test.c", "int main(void) { return 0; }")
    #expect(try read("two")["Kbuild"] == "obj-m := two.o\ntwo-y := main.o regs.o\n")
    try directory.write("-a-b c/main.c", "int f(void) { return 0; }")
    try directory.write("-a-b c/regs.c", "int g(void) { return 0; }")
    #expect(try read("-a-b c")["Kbuild"] == "obj-m := _a-b_c.o\n_a-b_c-y := main.o regs.o\n")
    try directory.write("one/x.c", "int f(void) { return 0; }")
    #expect(try read("one/")["Kbuild"] == "obj-m := x.o\n")
  }

  /// A submission's files are not in the file system.
  @Test(arguments: [
    ("my.c", ["my.c": "c", "my.h": "h", "Kbuild": "obj-m := my.o\n"]),
    ("two/main.c", ["main.c": "int f;", "Kbuild": "obj-m := main.o\n"]),
    (
      "two",
      [
        "main.c": "int f;", "regs.c": "int g;",
        "Kbuild": "obj-m := two.o\ntwo-y := main.o regs.o\n",
      ]
    ),
    ("deep/one/", ["x.c": "x", "Kbuild": "obj-m := x.o\n"]),
  ])
  func filesOfASubmissionAreTaken(module: String, files: [String: String]) throws {
    let given = [
      "my.c": "c", "my.h": "h", "sub/far.h": "h", "two/main.c": "int f;", "two/regs.c": "int g;",
      "two/$(x).c": "x", "deep/one/x.c": "x", "submission.txt": "module: my.c", "a.diff": "x",
    ].map { LabFile(name: $0.key, bytes: Array($0.value.utf8)) }
    let sources = try ModuleSources(given, named: module)
    let taken = sources.files.map { ($0.name, String(decoding: $0.bytes, as: UTF8.self)) }
    #expect(Dictionary(uniqueKeysWithValues: taken) == files)
  }

  @Test(arguments: ["$(x).c", "my.h", "none.c"])
  func submissionWithoutAModuleIsRefused(module: String) {
    let given = ["$(x).c", "my.h"].map { LabFile(name: $0, bytes: []) }
    #expect(throws: LabFailure.self) { try ModuleSources(given, named: module) }
  }

  @Test func makefileIsReadAndNotRun() throws {
    let rules = ModuleSources.rules(
      inMakefile: """
        obj-m += walker.o # the module
        walker-objs := main.o \\
          sub/regs.o
        ccflags-y := -DDEBUG=1
        ccflags-y += -include /etc/shadow
        KDIR ?= /lib/modules/$(shell uname -r)/build
        extra-y := ../../up.o
        evil-y := $(shell id)
        all:
        \tmake -C $(KDIR) M=$(PWD) modules
        X=$(shell touch /tmp/x)
        """)
    #expect(
      rules == [
        "obj-m += walker.o", "walker-objs := main.o sub/regs.o", "ccflags-y := -DDEBUG=1",
      ])
    #expect(ModuleSources.rules(inMakefile: "x-y := a.o\n").isEmpty)
  }

  @Test func badModulesAreTold() throws {
    try directory.write("empty/readme", "x")
    try directory.write("x.txt", "x")
    try directory.write("big.c", String(repeating: "x", count: (1 << 20) + 1))
    symlink("x.txt", "\(directory.path)/link.c")
    for name in ["absent.c", "empty", "x.txt", "big.c", "link.c"] {
      #expect(throws: LabFailure.self, "\(name)") { try read(name) }
    }
  }
}
