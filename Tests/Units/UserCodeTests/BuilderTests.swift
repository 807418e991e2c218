import Foundation
import SystemPackage
import Testing

@testable import UserCode

/// Tests of the texts that the code builder reads: diffs, messages of compilers, and places of addresses.
@Suite struct BuilderTests {
  // MARK: - Diffs

  private func patch(_ text: String) throws -> PatchFile {
    try PatchFile(parsing: Array(text.utf8), name: "my.patch")
  }

  @Test func filesOfADiff() throws {
    let files = try patch(
      """
      diff --git a/arch/arm64/kvm/mmio.c b/arch/arm64/kvm/mmio.c
      index 3dd38a151d2a..5b3ea41c3a10 100644
      --- a/arch/arm64/kvm/mmio.c
      +++ b/arch/arm64/kvm/mmio.c
      @@ -6,4 +6,3 @@
       #include <linux/kvm_host.h>
      --- a line that was removed and begins with two dashes
      -int x;
      +++ a/line that was added
       int y;
      --- /dev/null
      +++ b/include/linux/hide.h
      @@ -0,0 +1 @@
      +#define HIDE 1
      """
    ).files
    #expect(
      files == [
        .init(old: "arch/arm64/kvm/mmio.c", new: "arch/arm64/kvm/mmio.c"),
        .init(old: nil, new: "include/linux/hide.h"),
      ])
  }

  @Test func headersHaveTheAddedLines() throws {
    let headers = try patch(
      """
      --- a/arch/arm64/include/asm/kvm_pgtable.h
      +++ b/arch/arm64/include/asm/kvm_pgtable.h
      @@ -10,2 +10,4 @@
       #define A
      +#define HIDE 1
      +#define SEEK 2
       #define B
      @@ -20,2 +22,2 @@
      -#define C
      +#define D
       #define E
      --- /dev/null
      +++ b/include/linux/hide.h
      @@ -0,0 +1 @@
      +#define NEW 1
      """
    ).headers
    #expect(
      headers.files.map { "\($0.name)\n\(String(decoding: $0.bytes, as: UTF8.self))" } == [
        """
        changed-headers/asm/kvm_pgtable.h
        #include_next <asm/kvm_pgtable.h>
        #line 11 "arch/arm64/include/asm/kvm_pgtable.h"
        #define HIDE 1
        #define SEEK 2
        #line 22 "arch/arm64/include/asm/kvm_pgtable.h"
        #define D

        """,
        """
        changed-headers/linux/hide.h
        #line 1 "include/linux/hide.h"
        #define NEW 1

        """,
      ])
    #expect(headers.notes.count == 1 && headers.notes[0].contains("removes 1 lines of arch/arm64"))
  }

  @Test func filesThatTheModelDoesNotRunAreNamed() throws {
    let diff = try patch(
      """
      --- a/arch/arm64/kvm/mmio.c
      +++ b/arch/arm64/kvm/mmio.c
      --- a/arch/arm64/kvm/arm.c
      +++ b/arch/arm64/kvm/arm.c
      --- a/fs/open.c
      +++ b/fs/open.c
      --- a/arch/arm64/include/asm/kvm_pgtable.h
      +++ b/arch/arm64/include/asm/kvm_pgtable.h
      """)
    let failure = #expect(throws: CodeFailure.self) { try diff.requireSupport() }
    let text = try #require(failure).description
    #expect(text.contains("does not run: arch/arm64/kvm/arm.c, fs/open.c: it runs"), "\(text)")
    #expect(!text.contains("kvm_pgtable.h"))
  }

  @Test(arguments: [
    "a/../../etc/passwd", "/etc/passwd", "mmio.c", "a/x/../../../y.c", "a//etc/passwd", "\"a/x.c\"",
  ])
  func namesOutsideOfTheTreeAreRefused(name: String) {
    #expect(throws: CodeFailure.self) { try patch("--- \(name)\n+++ \(name)\n") }
  }

  @Test(arguments: ["", "hello\n", "diff --git a/x b/x\nGIT binary patch\n"])
  func otherTextIsNoDiff(text: String) {
    #expect(throws: CodeFailure.self) { try patch(text) }
  }

  @Test func versionOfATree() {
    let makefile = "# SPDX\nVERSION = 5\nPATCHLEVEL = 15\nSUBLEVEL = 0\n"
    #expect(SourceReader.kernelVersion(inMakefile: makefile) == "5.15")
    #expect(SourceReader.kernelVersion(inMakefile: "obj-m := x.o\n") == nil)
  }

  @Test(arguments: ["5.10", "5.19", "6.0", "6.1", "6.19", "7.0", "7.3"])
  func versionsInThePlaceOfATree(text: String) throws {
    #expect(SourceReader.isNumber(text))
    #expect(try SourceReader.kernelVersion(text) == text)
  }

  @Test(arguments: ["5", "5.9", "5.20", "6.20", "7.4", "8.0", "4.19", "6.12.5", "6.", "06", "6..1"])
  func otherVersionsAreRefused(text: String) {
    #expect(SourceReader.isNumber(text))
    #expect(throws: CodeFailure.self) { try SourceReader.kernelVersion(text) }
  }

  @Test(arguments: ["", ".", "..", "./6.12", "linux-6.12", "v6.12", "/usr/src/6.12"])
  func directoriesAreNoVersions(text: String) {
    #expect(!SourceReader.isNumber(text))
  }

  // MARK: - The runtime

  private let stampFiles: [SourceSnapshot.File] = [
    .init(name: "runtime/start.c", bytes: Array("int x;\n".utf8)),
    .init(name: "include/linux/fs.h", bytes: []),
    .init(name: "runtime/flags", bytes: Array("all -O1\n".utf8)),
  ]

  /// The numbers are those of cksum.
  @Test func checksumIsThatOfPOSIX() {
    var sum = RuntimeStamp.Checksum()
    #expect("\(sum.value) \(sum.size)" == "4294967295 0")
    sum.add(Array("1234".utf8))
    sum.add(Array("56789".utf8))
    #expect("\(sum.value) \(sum.size)" == "930766865 9")
  }

  @Test func stampIsOfAllFilesInTheOrderOfTheirNames() {
    let stamp = RuntimeStamp(stampFiles, machine: "x86_64").description
    #expect(stamp == RuntimeStamp(stampFiles.reversed(), machine: "x86_64").description)
    #expect(stamp != RuntimeStamp(stampFiles, machine: "aarch64").description)
    for index in stampFiles.indices {
      var files = stampFiles
      files[index].bytes.append(0x20)
      #expect(stamp != RuntimeStamp(files, machine: "x86_64").description)
      files = stampFiles
      files[index].name += "x"
      #expect(stamp != RuntimeStamp(files, machine: "x86_64").description)
      files.remove(at: index)
      #expect(stamp != RuntimeStamp(files, machine: "x86_64").description)
    }
  }

  @Test func flagsOfTheRuntime() {
    let text = """
      # all -comment
      all -O1
      aarch64 -mno-outline-atomics
      all/gcc -fno-x
      runtime/clang -fno-y
      runtime -DX="y"
      all -fmap=@kernel@/=/usr/

      """
    let flags = RuntimeFlags(text, compiler: "clang", machine: "x86_64")
    #expect(flags.options(.all, kernel: "/k") == ["-O1", "-fmap=/k/=/usr/"])
    #expect(flags.options(.runtime, kernel: "/k") == ["-fno-y", "-DX=\"y\""])
    let others = RuntimeFlags(text, compiler: "gcc", machine: "aarch64")
    #expect(
      others.options(.all, kernel: "/k") == [
        "-O1", "-mno-outline-atomics", "-fno-x", "-fmap=/k/=/usr/",
      ])
    #expect(others.options(.runtime, kernel: "/k") == ["-DX=\"y\""])
  }

  /// Each of the places that a program can have, in a directory of this test.
  @Test func placesOfTheSupportFiles() throws {
    let top = FilePath("/tmp/virt-walker-support-\(getpid())")
    defer { try? FileManager.default.removeItem(atPath: top.string) }
    func make(_ directory: String) throws {
      let runtime = top.appending("\(directory)/runtime").string
      try FileManager.default.createDirectory(atPath: runtime, withIntermediateDirectories: true)
      try "".write(toFile: "\(runtime)/channel.h", atomically: false, encoding: .utf8)
    }
    func place(_ directory: String, _ objects: String) -> SupportFiles.Place {
      .init(directory: top.appending(directory), objects: top.appending(objects))
    }
    let program = top.appending("usr/bin/virt-walkerd")
    try make("Kernel")
    #expect(try .find(for: program) == place("Kernel", ".build/kernel-objects"))
    try make("usr/share/virt-walker/kernel")
    let installed = place("usr/share/virt-walker/kernel", "usr/lib/virt-walker/objects")
    #expect(try .find(for: program) == installed)
    try make("usr/bin/kernel")
    #expect(try .find(for: program) == place("usr/bin/kernel", "usr/bin/kernel/objects"))
  }

  /// Objects are taken with the stamp of these files only. Kernel/build-runtime writes the stamp.
  @Test func objectsOfOtherFilesAreNotTaken() throws {
    let top = FilePath("/tmp/virt-walker-objects-\(getpid())")
    let files = FileManager.default
    try? files.removeItem(atPath: top.string)
    defer { try? files.removeItem(atPath: top.string) }
    let kernel = top.appending("kernel")
    for name in ["include", "runtime"] {
      try files.createDirectory(
        atPath: kernel.appending(name).string, withIntermediateDirectories: true)
    }
    func write(_ text: String, _ name: String) throws {
      try text.write(toFile: kernel.appending(name).string, atomically: false, encoding: .utf8)
    }
    try write("int start(void)\n{\n\treturn 0;\n}\n", "runtime/start.c")
    try write("", "runtime/channel.h")
    try write("all -O1\nruntime -g1\n", "runtime/flags")
    let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let script = kernel.appending("build-runtime").string
    try files.copyItem(atPath: sources.appending(path: "Kernel/build-runtime").path, toPath: script)
    let objects = kernel.appending("objects")
    #expect(system("'\(script)' '\(objects)'") == 0)

    func taken(isSanitized: Bool = false) throws -> [String] {
      try SupportFiles(
        at: .init(directory: kernel, objects: objects), isSanitized: isSanitized
      ).objects.map(\.name)
    }
    #expect(try taken() == ["start.o"])
    #expect(try taken(isSanitized: true) == ["start.o"])
    try write("all -O2\nruntime -g1\n", "runtime/flags")
    #expect(try taken() == [])
    try write("all -O1\nruntime -g1\n", "runtime/flags")
    #expect(try taken() == ["start.o"])
    try write("", "include/new.h")
    #expect(try taken() == [])
  }

  // MARK: - Compilers

  private func messages(directory: String = "lab/") -> CompilerMessages {
    var code = SourceSnapshot.Code()
    code.files = ["virt_walker.c", "registers.h", "inc/more.h"].map { .init(name: $0, bytes: []) }
    code.givenDirectory = directory
    code.absoluteDirectory = "/home/a/\(directory)"
    return CompilerMessages(
      of: code, directories: [("/tmp/build/kernel/", "/usr/share/virt-walker/kernel/")])
  }

  @Test func messagesAreMapped() {
    let lines = messages().lines(
      of: """
        In file included from virt_walker.c:2:
        ./registers.h:3:10: error: unknown type name 'u7'
                         from inc/more.h:1,
        /tmp/build/kernel/include/linux/fs.h:7:1: note: here
        /usr/bin/ld: /home/a/lab/virt_walker.c:9: undefined reference to `f'
        x.c:1: error: \u{1b}[31mred
        """)
    #expect(
      lines == [
        "In file included from lab/virt_walker.c:2:",
        "lab/registers.h:3:10: error: unknown type name 'u7'",
        "                 from lab/inc/more.h:1,",
        "/usr/share/virt-walker/kernel/include/linux/fs.h:7:1: note: here",
        "/usr/bin/ld: lab/virt_walker.c:9: undefined reference to `f'",
        "x.c:1: error: \\x1b[31mred",
      ])
  }

  /// The file that includes a hook is not the user's: its lines are left out, and its errors are told in other words.
  @Test(arguments: [
    (
      """
      /b/runtime/hook-source.c:31:1: error: static assertion failed: "--hook-function f: the function has another form"
         31 | _Static_assert(HOOK_FORM(&HOOK_FUNCTION) != HOOK_OTHER,
            | ^~~~~~~~~~~~~~
      ./x.c:3:1: warning: unused
          3 | int unused;
      """, "--hook-function f: the function has another form"
    ),
    (
      """
      /b/runtime/hook-source.c:31:1: error: static_assert failed due to requirement '0' "--hook-function f: the function has another form"
      _Static_assert(HOOK_FORM(&HOOK_FUNCTION) != HOOK_OTHER,
      ^
      ./x.c:3:1: warning: unused
          3 | int unused;
      """, "--hook-function f: the function has another form"
    ),
    (
      """
      /b/runtime/hook-source.c:18:47: error: 'f' undeclared here (not in a function)
         18 | #define HOOK_FORM(function) _Generic((function),
      ./x.c:3:1: warning: unused
          3 | int unused;
      """,
      "--hook-function f: the hook has no function of this name: give the name of the function that io_mem_abort() has to call"
    ),
  ])
  func hookFunctionIsTold(output: String, message: String) {
    #expect(
      messages().lines(of: output) == [
        message, "x.c:3:1: warning: unused", "    3 | int unused;",
      ])
  }

  @Test func longOutputIsCut() {
    let output = (0..<1000).map { "virt_walker.c:\($0): error: x" }.joined(separator: "\n")
    let lines = messages().lines(of: output)
    #expect(lines.count == 61)
    #expect(lines[30] == "(940 more lines)")
    #expect(lines.last == "lab/virt_walker.c:999: error: x")
    #expect(messages().lines(of: String(repeating: "same\n", count: 200)) == ["same"])
    #expect(messages().lines(of: String(repeating: "x", count: 100_000))[0].count < 500)
  }

  @Test(arguments: [
    (
      "virt_walker.c:3:10: fatal error: linux/gpio.h: No such file or directory",
      "lab/virt_walker.c:3: virt-walker has no <linux/gpio.h>: docs/your-code.md"
    ),
    (
      "virt_walker.c:1:10: fatal error: 'stdio.h' file not found",
      "lab/virt_walker.c:1: <stdio.h> is a header of programs"
    ),
    (
      "virt_walker.c:1:10: fatal error: ../x.h: No such file or directory",
      "lab/virt_walker.c:1: ../x.h is not there: only the headers beside"
    ),
    (
      "virt_walker.c:12:3: error: implicit declaration of function 'gpio_get' [-Werror]",
      "lab/virt_walker.c:12: virt-walker has no function gpio_get()"
    ),
    (
      "/usr/bin/ld: /home/a/lab/virt_walker.c:9: undefined reference to `gpio_set'",
      "virt-walker has no function gpio_set()"
    ),
    (
      "virt_walker.c:12: Error: no such instruction: `mrs x0,midr_el1'",
      "lab/virt_walker.c:12: the code is compiled for this machine"
    ),
    (
      "virt_walker.c:12:2: error: unknown register name 'x0' in 'asm'",
      "lab/virt_walker.c:12: the code is compiled for this machine"
    ),
  ])
  func advice(message: String, advice: String) {
    let found = messages().advice(on: message)
    #expect(found.count == 1 && found[0].contains(advice), "\(found)")
  }

  @Test func ordinaryErrorsNeedNoAdvice() {
    #expect(
      messages().advice(on: "virt_walker.c:12:3: error: expected ';' before 'return'").isEmpty)
  }

  // MARK: - Places

  @Test func placesOfAddresses() {
    let places = SymbolPlaces(directory: ("/home/a/lab/", "lab/")).parse(
      """
      0x0000000000401023
      inner
      /home/a/lab/virt_walker.c:12 (discriminator 3)
      walker_read
      /home/a/lab/virt_walker.c:40
      0x0000000000000010
      ??
      ??:0
      0x0000000000402000
      runtime_call
      /usr/share/virt-walker/kernel/runtime/start.c:?
      """, count: 4)
    #expect(
      places == [
        [
          SourcePlace(function: "inner", file: "lab/virt_walker.c", line: 12, isUsers: true),
          SourcePlace(function: "walker_read", file: "lab/virt_walker.c", line: 40, isUsers: true),
        ], [],
        [
          SourcePlace(
            function: "runtime_call", file: "/usr/share/virt-walker/kernel/runtime/start.c",
            line: 0, isUsers: false)
        ], [],
      ])
  }

  // MARK: - Files

  @Test func snapshotsComeAsTheyAre() throws {
    var snapshot = SourceSnapshot()
    snapshot.kernelVersion = "5.15"
    snapshot.codes[.module] = .init(
      files: [.init(name: "a.c", bytes: [0, 1, 255]), .init(name: "b/c.h", bytes: [])],
      sources: ["a.c"], givenDirectory: "x/", absoluteDirectory: "/y/x/", notes: ["n"])
    snapshot.codes[.hook] = .init(patch: [1, 2])
    #expect(SnapshotBytes.decode(SnapshotBytes.encode(.success(snapshot))) == .success(snapshot))
    let failure = CodeFailure("no")
    #expect(SnapshotBytes.decode(SnapshotBytes.encode(.failure(failure))) == .failure(failure))
    let bytes = SnapshotBytes.encode(.success(snapshot))
    for count in 0..<bytes.count {
      #expect(SnapshotBytes.decode(Array(bytes.prefix(count))) == nil)
    }
  }

  @Test(arguments: [
    ("int main(void)\n{", true), ("int main (int argc, char **argv)", true),
    ("static int init(void)\n{\n\tmain();\n}", false), ("/* int main( */", false),
    ("int domain(void)", false),
  ])
  func programsAreNotPartOfAModule(text: String, isProgram: Bool) {
    #expect(SourceReader.isProgram(Array(text.utf8)) == isProgram)
  }

  @Test func supportFilesAreFoundInTheCheckout() throws {
    let file = FilePath(#filePath)
    let checkout = file.removingLastComponent().removingLastComponent().removingLastComponent()
      .removingLastComponent()
    let place = try SupportFiles.Place.find(
      for: checkout.appending(".build/x86_64-unknown-linux-gnu/debug/virt-walkerd"))
    let objects = checkout.appending(".build/kernel-objects")
    #expect(place == .init(directory: checkout.appending("Kernel"), objects: objects))
    #expect(throws: CodeFailure.self) { try SupportFiles.Place.find(for: "/no/where/virt-walkerd") }
    let files = try SupportFiles(at: place, isSanitized: false).files
    #expect(files.contains { $0.name == "runtime/channel.h" })
    let options = try RuntimeFlags(in: files, compiler: "gcc").options(.all, kernel: "/kernel")
    #expect(options.contains("-I/kernel/include"))
    // The messages of the compiler name our files as the debug information does.
    #expect(options.contains("-ffile-prefix-map=/kernel/=\(Toolchain.shownKernel)"))
    // Kernel/build-runtime compiles without -DLINUX_VERSION_CODE.
    let version = files.first { $0.name == "include/linux/version.h" }
    let number = SupportFiles.version.replacingOccurrences(of: ".", with: ", ")
    let text = String(decoding: version?.bytes ?? [], as: UTF8.self)
    #expect(text.contains("#define LINUX_VERSION_CODE KERNEL_VERSION(\(number), 0)"))
  }
}
