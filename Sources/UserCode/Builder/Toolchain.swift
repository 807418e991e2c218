import CharacterDeviceServer
import Glibc
import SystemPackage

/// The compiler and the tools of this machine, and the options for a user's code (Kernel/runtime/flags, and
/// Kernel/runtime/runtime.h, which explains them).
package struct Toolchain {
  let compiler: String
  /// The tool that gives the lines of addresses; nil if it is missing.
  let addr2line: String?
  /// The tool that applies diffs; nil if it is missing.
  let patch: String?
  private let flags: RuntimeFlags

  /// The environment of a tool that needs no directory of its own.
  static let environment = ["PATH=\(directories.joined(separator: ":"))", "LC_ALL=C.UTF-8"]

  private static let directories = ["/usr/local/bin", "/usr/bin", "/bin"]

  /// - Parameter files: The support files, which have the options.
  init(_ files: [SourceSnapshot.File]) throws(CodeFailure) {
    compiler = try Self.findCompiler()
    flags = try RuntimeFlags(
      in: files, compiler: String(compiler.split(separator: "/").last ?? ""))
    addr2line = Self.find("addr2line") ?? Self.find("llvm-addr2line")
    patch = Self.find("patch")
  }

  static func findCompiler() throws(CodeFailure) -> String {
    guard let compiler = find("gcc") ?? find("clang") else {
      throw CodeFailure(
        "there is no C compiler (gcc or clang) in \(directories.joined(separator: ", ")): apt-get install gcc"
      )
    }
    return compiler
  }

  package static func find(_ name: String) -> String? {
    directories.map { "\($0)/\(name)" }.first { access($0, X_OK) == 0 }
  }

  // MARK: - The compiler's options

  /// The options for all files.
  private func common(_ kernel: String, version: String) -> [String] {
    let numbers = version.split(separator: ".").compactMap { UInt32($0) }
    let code = numbers.count == 2 ? numbers[0] << 16 | numbers[1] << 8 : 0x060100
    return flags.options(.all, kernel: kernel)
      + ["-DLINUX_VERSION_CODE=0x\(String(code, radix: 16))"]
  }

  /// The name of our own files in debug information.
  static let shownKernel = "/usr/share/virt-walker/kernel/"

  /// A file of a user to compile.
  struct Source {
    /// The name of the file in the directory of the code, in which the compiler runs.
    var name: String
    var kind: CodeKind
    var module: String
    var directory: (compiled: String, shown: String)
    /// The function of the hook, if the file has it.
    var hookFunction: String?
  }

  func arguments(
    compile source: Source, to object: String, kernel: String, version: String, isSanitized: Bool
  ) -> [String] {
    let base = source.name.split(separator: "/").last.map(String.init) ?? source.name
    var options = ["-I", "\(source.directory.compiled)/\(PatchFile.headerDirectory)"]
    options += common(kernel, version: version)
    options += [
      // With DWARF 5, addr2line of binutils 2.40 names hook-source.c in the place of the user's file.
      "-g", "-gdwarf-4", "-Werror=implicit-function-declaration", "-Werror=implicit-int",
      "-Werror=incompatible-pointer-types", "-Werror=int-conversion", "-Werror=return-type",
      "-DKBUILD_MODNAME=\"\(Self.identifier(source.module))\"",
      "-DKBUILD_BASENAME=\"\(Self.identifier(base.hasSuffix(".c") ? String(base.dropLast(2)) : base))\"",
      "-ffile-prefix-map=\(source.directory.compiled)=\(source.directory.shown)",
    ]
    if isSanitized { options += ["-fsanitize=address,undefined", "-fno-sanitize=alignment"] }
    switch source.kind {
    case .module: options += ["-DMODULE", "-c", source.name]
    case .hook:
      // A file of the runtime includes the user's file, so that it can use a static function.
      if let function = source.hookFunction { options.append("-DHOOK_FUNCTION=\(function)") }
      options += [
        "-I", "\(kernel)/runtime", "-I", "\(kernel)/runtime/freestanding",
        "-DHOOK_SOURCE=\"\(source.directory.compiled)/\(source.name)\"",
        "-c", "\(kernel)/runtime/\(Self.hookSource)",
      ]
    }
    return options + ["-o", object]
  }

  /// The file of the runtime that includes a user's hook.
  static let hookSource = "hook-source.c"

  /// The arguments to compile a file of the runtime.
  func arguments(
    compileRuntime source: String, to object: String, kernel: String, version: String,
    isSanitized: Bool
  ) -> [String] {
    var options =
      common(kernel, version: version) + flags.options(.runtime, kernel: kernel)
    if isSanitized { options.append("-DRUNTIME_SANITIZE") }
    return options + ["-c", source, "-o", object]
  }

  func arguments(link objects: [String], to program: String, isSanitized: Bool) -> [String] {
    let kind =
      isSanitized
      ? ["-no-pie", "-fsanitize=address,undefined"] : ["-static", "-nostdlib"]
    return kind + ["-Wl,--build-id=none", "-Wl,-z,noexecstack", "-o", program] + objects
      + (isSanitized ? [] : ["-lgcc"])
  }

  /// The name of a module that contains a file or directory of this name.
  static func identifier(_ name: String) -> String {
    String(
      name.map { $0.isASCII && ($0.isLetter || $0.isNumber) || $0 == "_" ? $0 : "_" as Character })
  }

  // MARK: - Confinement

  /// A tool that works in the build directory, and reads only that and the system.
  func tool(_ path: String, _ arguments: [String], in directory: String, build: String)
    -> ChildProgram
  {
    ChildProgram(
      path: path, arguments: arguments,
      environment: [
        "PATH=\(Self.directories.joined(separator: ":"))", "LC_ALL=C", "TMPDIR=\(build)/tmp",
        "HOME=\(build)/tmp", "SOURCE_DATE_EPOCH=0",
      ],
      directory: directory,
      limits: [
        (RLIMIT_CPU, 20), (RLIMIT_AS, 3 << 30), (RLIMIT_FSIZE, 64 << 20), (RLIMIT_CORE, 0),
        (RLIMIT_NOFILE, 64),
      ],
      rules: Sandbox.ProgramRules(
        .tool, Self.system + [.init(build, writable: true), .init("/dev/null", writable: true)]))
  }

  /// A program with a user's code.
  static func code(
    _ path: String, isSanitized: Bool, socket: FileDescriptor, memory: FileDescriptor
  )
    -> ChildProgram
  {
    var limits: [(resource: __rlimit_resource, value: UInt)] = [
      (__RLIMIT_NPROC, 0), (RLIMIT_FSIZE, 0), (RLIMIT_CORE, 0), (RLIMIT_NOFILE, 16),
      (__RLIMIT_MEMLOCK, 0), (__RLIMIT_MSGQUEUE, 0),
    ]
    // The shadow memory of AddressSanitizer takes terabytes of addresses.
    if !isSanitized { limits += [(RLIMIT_AS, 64 << 30), (RLIMIT_DATA, 1 << 30)] }
    let libraries: [Sandbox.AllowedPath] =
      isSanitized ? system + [.init("/proc/self"), .init("/dev/null", writable: true)] : []
    return ChildProgram(
      path: path,
      environment: isSanitized
        ? ["ASAN_OPTIONS=detect_leaks=0:symbolize=0", "UBSAN_OPTIONS=symbolize=0"] : [],
      descriptors: [nil, nil, nil, socket, memory], limits: limits,
      rules: Sandbox.ProgramRules(
        .foreignCode(loadsLibraries: isSanitized), libraries + [.init(path)]))
  }

  package static let system: [Sandbox.AllowedPath] = [
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives",
  ].map { .init($0) }
}
