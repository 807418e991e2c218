import CharacterDeviceServer
import Glibc
import SystemPackage

/// A program with a user's code that was compiled.
struct BuiltProgram: Equatable {
  let kind: CodeKind
  /// The path of the program.
  let path: String
  /// The directory of the user's files, as the debug information names it and as the user has given it.
  let compiledDirectory: String
  let shownDirectory: String

  static func == (left: Self, right: Self) -> Bool { left.path == right.path }
}

/// A C file of the runtime, and the programs to which it belongs.
struct RuntimeSource {
  let name: String
  let kinds: [CodeKind]

  /// The file, if it is a C file of the runtime.
  init?(_ file: SourceSnapshot.File) {
    let prefix = "runtime/"
    guard file.name.hasPrefix(prefix), file.name.hasSuffix(".c") else { return nil }
    name = String(file.name.dropFirst(prefix.count))
    guard !name.contains("/"), name != Toolchain.hookSource else { return nil }
    // The files of one kind of code have the header of that kind.
    let text = String(decoding: file.bytes, as: UTF8.self)
    kinds =
      text.contains("#include \"hook.h\"") || name == "hook.c"
      ? [.hook]
      : text.contains("#include \"module.h\"") || name == "module.c"
        ? [.module] : [.module, .hook]
  }
}

/// The work to make programs of a user's files.
struct Compilation {
  let sources: CodeSources
  let toolchain: Toolchain
  let directory: BuildDirectory
  /// The name of the directory for the files of this compilation.
  let name: String
  let snapshot: SourceSnapshot
  let runtime: [RuntimeSource]
  let atOnce: Int

  struct Output {
    var programs: [BuiltProgram] = []
    /// Warnings and remarks.
    var messages: [String] = []
  }

  private var kernel: String { "\(directory.path)/kernel" }

  func run(_ kinds: [CodeKind]) throws(CodeFailure) -> Output {
    var output = Output()
    var jobs: [Job] = []
    var runtimeJobs: [Job] = []
    var objects: [CodeKind: [String]] = [:]
    let runtimeObjects = Self.runtimeObjects(of: version)
    try directory.write([], to: runtimeObjects)
    for kind in kinds {
      guard let code = snapshot.codes[kind] else { continue }
      output.messages += code.notes
      try prepare(code, kind)
      objects[kind] = []
      for (index, source) in code.sources.enumerated() {
        let object = "\(path(kind))/\(index).o"
        objects[kind]!.append(object)
        jobs.append(compile(source, to: object, code, kind))
      }
      for source in runtimeSources(of: kind) {
        let object = "\(directory.path)/\(runtimeObjects)/\(source.dropLast(2)).o"
        objects[kind]!.append(object)
        guard access(object, F_OK) != 0, !runtimeJobs.contains(where: { $0.output == object })
        else { continue }
        runtimeJobs.append(
          Job(
            kind: nil, output: object,
            tool: tool(
              toolchain.arguments(
                compileRuntime: "\(kernel)/runtime/\(source)", to: object, kernel: kernel,
                version: version, isSanitized: sources.isSanitized), in: directory.path)))
      }
    }
    // The errors of the user's code come first, and at once.
    try run(jobs, &output)
    try run(runtimeJobs, &output)
    jobs = kinds.compactMap { kind in
      objects[kind].map { link($0, kind) }
    }
    try run(jobs, &output)
    output.programs = jobs.map { job in
      let code = snapshot.codes[job.kind!]!
      return BuiltProgram(
        kind: job.kind!, path: job.output, compiledDirectory: code.absoluteDirectory,
        shownDirectory: code.givenDirectory)
    }
    return output
  }

  private var version: String { snapshot.kernelVersion ?? SupportFiles.version }

  /// The directory of the runtime's objects for a version of the kernel, in the build directory.
  static func runtimeObjects(of version: String) -> String { "objects/\(version)" }

  private func path(_ kind: CodeKind) -> String { "\(directory.path)/\(name)/\(kind.rawValue)" }

  // MARK: - Jobs

  private struct Job {
    /// The kind of the user's code; nil for the runtime.
    let kind: CodeKind?
    let output: String
    let tool: ChildProgram
  }

  private func tool(_ arguments: [String], in directory: String) -> ChildProgram {
    toolchain.tool(toolchain.compiler, arguments, in: directory, build: self.directory.path)
  }

  /// Writes the files of a code, and applies its diff.
  private func prepare(_ code: SourceSnapshot.Code, _ kind: CodeKind) throws(CodeFailure) {
    try directory.write(code.files, to: "\(name)/\(kind.rawValue)/src")
    guard let patch = code.patch else { return }
    guard let program = toolchain.patch else {
      throw CodeFailure("the program patch is missing: apt-get install patch")
    }
    try directory.write(
      [.init(name: "patch", bytes: patch)], to: "\(name)/\(kind.rawValue)")
    let result = toolchain.tool(
      program,
      ["-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-i", "\(path(kind))/patch"],
      in: "\(path(kind))/src", build: directory.path
    ).run()
    guard result.succeeded else {
      let lines = CompilerMessages(of: code).lines(of: result.output)
      throw CodeFailure(
        (lines + [
          "\(sources.patch ?? "the patch") does not fit the tree \(sources.linux ?? ""): name the tree from which the diff was made"
        ]).joined(separator: "\n"))
    }
  }

  private func compile(
    _ source: String, to object: String, _ code: SourceSnapshot.Code, _ kind: CodeKind
  ) -> Job {
    let directory = "\(path(kind))/src"
    return Job(
      kind: kind, output: object,
      tool: tool(
        toolchain.arguments(
          compile: Toolchain.Source(
            name: source, kind: kind, module: moduleName(code, kind),
            directory: (directory, String(code.absoluteDirectory.dropLast())),
            hookFunction: source == hookFile(code) ? sources.hookFunction : nil),
          to: object, kernel: kernel, version: version, isSanitized: sources.isSanitized),
        in: directory))
  }

  /// The name of the module: that of its file, or that of the directory of its files.
  private func moduleName(_ code: SourceSnapshot.Code, _ kind: CodeKind) -> String {
    if kind == .hook { return "kvm" }
    if code.sources.count == 1 { return String(code.sources[0].dropLast(2)) }
    return code.absoluteDirectory.split(separator: "/").last.map(String.init) ?? "module"
  }

  /// The file with the function of `--hook-function`: the first one that names it.
  private func hookFile(_ code: SourceSnapshot.Code) -> String? {
    guard let function = sources.hookFunction else { return nil }
    return code.sources.first { name in
      let file = code.files.first { $0.name == name }
      return file.map { String(decoding: $0.bytes, as: UTF8.self).contains(function) } ?? false
    } ?? code.sources.first
  }

  private func runtimeSources(of kind: CodeKind) -> [String] {
    // The user's code is before boundary.o, and the runtime after it.
    ["boundary.c"]
      + runtime.filter { $0.kinds.contains(kind) && $0.name != "boundary.c" }.map(\.name)
  }

  private func link(_ objects: [String], _ kind: CodeKind) -> Job {
    let program = "\(path(kind))/code-\(kind.rawValue)"
    return Job(
      kind: kind, output: program,
      tool: tool(
        toolchain.arguments(link: objects, to: program, isSanitized: sources.isSanitized),
        in: "\(path(kind))/src"))
  }

  /// Runs jobs, and takes their warnings.
  ///
  /// - Throws: ``CodeFailure`` with the errors of all jobs that have failed.
  private func run(_ jobs: [Job], _ output: inout Output) throws(CodeFailure) {
    let results = ChildProgram.run(jobs.map(\.tool), atOnce: atOnce)
    var errors: [String] = []
    for (job, result) in zip(jobs, results) {
      guard let kind = job.kind, let code = snapshot.codes[kind] else {
        guard !result.succeeded else { continue }
        // Our own files do not depend on the user's.
        throw CodeFailure(
          "\(toolchain.compiler) cannot compile a part of virt-walker: \(result.output.split(separator: "\n").prefix(5).joined(separator: "\n")): this is a defect of virt-walker, or the compiler is not complete"
        )
      }
      let messages = CompilerMessages(
        of: code,
        directories: [
          ("\(path(kind))/src/", code.givenDirectory), ("\(kernel)/", Toolchain.shownKernel),
          ("\(directory.path)/tmp/", "assembly of the code/"),
        ])
      let lines = messages.lines(of: result.output)
      if result.succeeded {
        output.messages += lines
        continue
      }
      errors += lines + messages.advice(on: result.output)
      if let reason = reason(result) { errors.append(reason) }
    }
    guard errors.isEmpty else { throw CodeFailure(errors.joined(separator: "\n")) }
  }

  /// The reason of a failure that the tool itself does not tell.
  private func reason(_ result: ToolResult) -> String? {
    let signal = result.status & 0x7f
    if result.hasTimedOut || signal == SIGXCPU || signal == SIGKILL
      || result.output.contains("Killed signal") || result.output.contains("CPU time limit")
    {
      return
        "the compiler took too long, or too much memory: it has 20 s of CPU time and 3 GiB: look for an #include or a macro that repeats itself"
    }
    if result.output.isEmpty {
      return "\(toolchain.compiler) has failed without a message (status \(result.status))"
    }
    return nil
  }
}
