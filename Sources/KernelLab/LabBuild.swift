import CLinux
import CharacterDeviceServer
import Glibc
import Hashing
import SystemPackage
import UserCode

/// The work of a lab's worker: from the user's files to images.
///
/// A directory of the cache for each kernel has:
///
/// - `source`: the clean source, which nothing changes
/// - `CONFIGURATION/base`: a tree with hard links to the source and, in `tree/build`, the objects of the clean kernel
/// - `CONFIGURATION/HASH`: such a tree with changed files; its objects begin as copies of those in `base`, with their times, so that `make`
///   makes only those anew that a changed file is in
/// - in each of these, `host-HASH` and `guest-HASH`: the file systems of host and guest
///
/// A directory or file `complete` marks what is whole. All else is what a build has left that was ended, and is made anew.
struct LabBuild {
  let sources: LabSources
  let cache: FilePath
  let workingDirectory: String
  let support: LabSupport
  let worker: LabWorker
  let kernel: KernelSource

  private static let mostVariants = 4
  private static let mostBases = 2
  private static let mostGuests = 8
  private static let largestInput = 4 << 20

  private var root: FilePath { cache.appending(kernel.name) }
  private var source: FilePath { root.appending("source") }

  /// Builds what is missing, and tells the results.
  func run() throws(LabFailure) {
    let inputs = try readInputs()
    LabFiles.makeDirectories(root)
    try worker.takeLock(root.appending("lock"), of: kernel.title)
    let changes = try prepareSource()
    Sandbox.dropAllCapabilities()

    var overlay = changes
    try apply(inputs, to: &overlay)
    let hasChanges = !overlay.isEmpty
    let observed = try InvalidationCalls(
      header: support.file("invalidation.h"), source: support.file("invalidation.c"))
    if try !observed.insert(into: &overlay, of: source) {
      worker.tell(
        "mmu.c and hyp/pgtable.c of this kernel do not invalidate TLB entries by kvm_call_hyp(): not all invalidations are observed"
      )
    }
    let base = try makeBase(inputs.config)
    let variant = try makeVariant(overlay, of: base, isOfCode: hasChanges)
    let host = try makeHost(variant)
    let guest = try makeGuest(variant, inputs.module)

    let build = variant.appending("tree/build")
    for (key, value) in [
      ("variant", variant.string), ("host", host.string), ("guest", guest.string),
      ("image", build.appending(Self.image).string),
      ("program", build.appending("vmlinux").string),
      ("release", release(build)), ("bytes", "\(DiskUse.bytes(ofKernel: root))"),
    ] {
      worker.tell(.result, "\(key)=\(value)")
    }
  }

  private static let image = "arch/arm64/boot/Image"

  private func release(_ build: FilePath) -> String {
    let text = LabFiles.read("include/config/kernel.release", in: build) ?? []
    return String(decoding: text, as: UTF8.self).split(separator: "\n").first.map(String.init) ?? ""
  }

  // MARK: - The user's files

  private struct Inputs {
    var patches: [(given: String, bytes: [UInt8])] = []
    var hook: HookInsertion?
    var module: ModuleSources
    var config: [UInt8] = []
  }

  private func readInputs() throws(LabFailure) -> Inputs {
    let module: ModuleSources
    if let files = sources.files, let name = sources.module {
      module = try ModuleSources(files.filter { $0.name != sources.hook }, named: name)
    } else {
      module = try ModuleSources(
        at: sources.module ?? support.ownModule.string, workingDirectory: workingDirectory)
    }
    var inputs = Inputs(module: module)
    for patch in sources.patches {
      inputs.patches.append((patch, try read(patch, "patch")))
    }
    if let config = sources.config { inputs.config = try read(config, "config") }
    if let hook = sources.hook {
      if let given = hookInFiles(hook) {
        inputs.hook = given
      } else {
        inputs.hook = try readHook(hook, function: sources.hookFunction)
      }
    } else if sources.patches.isEmpty, kernel.takesOwnHook {
      inputs.hook = try readHook(
        support.ownHook.string, function: LabSupport.ownHookFunction)
    }
    return inputs
  }

  private func read(_ given: String, _ option: String) throws(LabFailure) -> [UInt8] {
    if option != "config", let file = sources.files?.first(where: { $0.name == given }) {
      return file.bytes
    }
    let path = FilePath(given.hasPrefix("/") ? given : "\(workingDirectory)/\(given)")
    do throws(Errno) {
      let entry = try DirectoryEntry(path.lexicallyNormalized())
      guard try entry.attributes.st_mode & S_IFMT == S_IFREG else { throw .invalidArgument }
    } catch {
      throw LabFailure("cannot read \(given): \(error): give --\(option) a regular file")
    }
    guard let bytes = LabFiles.read(path.lexicallyNormalized(), most: Self.largestInput) else {
      throw LabFailure(
        "cannot read \(given): it is not readable, or larger than \(Self.largestInput >> 20) MiB: give --\(option) another file"
      )
    }
    return bytes
  }

  private func readHook(_ given: String, function: String?) throws(LabFailure) -> HookInsertion {
    guard given.hasSuffix(".c") else {
      throw LabFailure("\(given) is not a C file: the name of a hook's file ends in .c")
    }
    let bytes = try read(given, "hook")
    var headers: [(String, [UInt8])] = []
    let directory = FilePath(given.hasPrefix("/") ? given : "\(workingDirectory)/\(given)")
      .lexicallyNormalized().removingLastComponent()
    for name in LabFiles.names(in: directory) where Self.isHeaderOfHook(name) {
      if let bytes = LabFiles.read(directory.appending(name), most: 1 << 20) {
        headers.append((name, bytes))
      }
    }
    return HookInsertion(given: given, bytes: bytes, function: function, headers: headers)
  }

  private static func isHeaderOfHook(_ name: String) -> Bool {
    // The real file trace.h defines KVM's tracepoints, and the kernel has it.
    name.hasSuffix(".h") && !name.hasPrefix("trace") && HookInsertion.safeName(name) == name
  }

  /// A hook that is not in the file system; nil for another one.
  private func hookInFiles(_ name: String) -> HookInsertion? {
    guard let files = sources.files, let file = files.first(where: { $0.name == name }) else {
      return nil
    }
    let directory = name.prefix(
      name.utf8.count - (name.split(separator: "/").last?.utf8.count ?? 0))
    let headers = files.filter { $0.name.hasPrefix(directory) }
      .map { (String($0.name.dropFirst(directory.count)), $0.bytes) }
      .filter { Self.isHeaderOfHook($0.0) }
    return HookInsertion(
      given: name, bytes: file.bytes, function: sources.hookFunction, headers: headers)
  }

  // MARK: - The clean source

  /// Makes the clean source if it is missing.
  ///
  /// - Returns: The files of the user's directory that have changed since it was copied.
  private func prepareSource() throws(LabFailure) -> Overlay {
    try LabFiles.writeWhole(root.appending("title"), Array(kernel.title.utf8))
    let complete = root.appending("complete")
    let manifestFile = root.appending("manifest")
    var manifest = TreeManifest()
    var tree: OwnedDescriptor?
    if case .directory(let path) = kernel.kind {
      do throws(Errno) {
        let opened = try DirectoryEntry(FilePath(path), followsLink: true).open(
          O_RDONLY | O_DIRECTORY)
        tree = opened
      } catch {
        throw LabFailure("cannot read \(kernel.given): \(error): make it readable for you")
      }
      manifest = try TreeManifest(of: tree!, given: kernel.given)
    }
    if LabFiles.exists(complete) {
      guard let tree else { return Overlay() }
      let old = TreeManifest(parsing: LabFiles.text(manifestFile) ?? "")
      let changes = manifest.changes(since: old)
      if changes.count <= 500, !changes.contains("Makefile") {
        return try overlay(of: changes, in: tree)
      }
      worker.tell("\(kernel.given) has changed in \(changes.count) files: it is copied again")
      LabFiles.remove(complete)
      for name in LabFiles.names(in: root) where name.hasPrefix("config-") {
        for inner in LabFiles.names(in: root.appending(name)) {
          _ = LabClaim.removeUnclaimed(root.appending(name).appending(inner))
        }
      }
    }
    LabFiles.remove(source)
    mkdir(source.string, 0o700)
    switch kernel.kind {
    case .version(let version): try download(version)
    case .directory: try copy(tree!)
    case .archive(let path): try unpack(path)
    }
    try checkSource()
    if tree != nil { try LabFiles.writeWhole(manifestFile, Array(manifest.text.utf8)) }
    try keepSize(of: source, in: root, links: true)
    try LabFiles.writeWhole(complete, [])
    return Overlay()
  }

  private func download(_ version: String) throws(LabFailure) {
    let archive = root.appending("source.tar.xz")
    if !LabFiles.exists(archive) {
      worker.tell("downloading the source of Linux \(version) from Debian (about 150 MB)")
      let temporary = root.appending("download")
      LabFiles.remove(temporary)
      mkdir(temporary.string, 0o700)
      let result = try LabTool(
        path: "/bin/sh",
        arguments: [support.sourceScript.string, archive.string, "linux-source-\(version)"],
        directory: root.string, writable: [temporary.string],
        environment: Self.passedEnvironment, isTrusted: true, seconds: 3600
      ).run(for: worker)
      LabFiles.remove(temporary)
      guard result.succeeded, LabFiles.exists(archive) else {
        throw LabFailure(
          "the source of Linux \(version) cannot be had: the lines above say why: give --linux another version, a directory or an archive",
          after: Array(result.lines.suffix(20)))
      }
    }
    try unpack(archive.string)
    LabFiles.remove(archive)
  }

  /// The variables by which a system reaches its package archives.
  private static var passedEnvironment: [String] {
    [
      "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "no_proxy", "NO_PROXY",
      "DEBIAN_MIRROR", "DEBIAN_SECURITY_MIRROR",
    ].compactMap { (name: String) -> String? in
      getenv(name).map { "\(name)=\(String(cString: $0))" }
    }
  }

  private func unpack(_ path: String) throws(LabFailure) {
    worker.tell("unpacking \(kernel.title)")
    let archive: OwnedDescriptor
    do throws(Errno) {
      archive = try DirectoryEntry(FilePath(path), followsLink: true).openRegularFile(O_RDONLY)
    } catch {
      throw LabFailure("cannot read \(path): \(error): make it readable for you")
    }
    try LabTool(
      path: "/bin/tar",
      arguments: ["-x"] + (KernelSource.decompression(path) ?? []) + [
        "-f", "-", "--strip-components=1", "--no-same-owner", "--no-same-permissions", "-C",
        source.string,
      ], directory: source.string, writable: [source.string], standardInput: archive.descriptor,
      seconds: 1800
    ).run(
      for: worker,
      orFailWith: "cannot unpack \(path): look whether the archive is complete, and make room")
  }

  private func copy(_ tree: OwnedDescriptor) throws(LabFailure) {
    worker.tell("copying \(kernel.given), without .git and objects")
    do throws(Errno) {
      let target = try DirectoryEntry(source).open(O_RDONLY | O_DIRECTORY)
      try Self.copyDirectory(tree, to: target, "", depth: 0)
    } catch {
      throw LabFailure("cannot copy \(kernel.given) to \(source): \(error): make room there")
    }
    // A tree that was built in has more files of the build: the tree's own rules remove them.
    _ = try make(
      source, ["ARCH=arm64", "mrproper"], writable: [source.string], readable: [], seconds: 600)
  }

  private static func copyDirectory(
    _ directory: OwnedDescriptor, to target: OwnedDescriptor, _ prefix: String, depth: Int
  ) throws(Errno) {
    for name in LabFiles.names(in: directory) where !TreeManifest.isProduct(prefix, name) {
      let entry = DirectoryEntry(name, in: directory)
      let copy = DirectoryEntry(name, in: target)
      guard let attributes = try? entry.attributes else { continue }
      switch attributes.st_mode & S_IFMT {
      case S_IFDIR:
        guard depth < 32, let inner = try? entry.open(O_RDONLY | O_DIRECTORY) else { continue }
        try copy.makeDirectory(mode: 0o755)
        try copyDirectory(
          inner, to: copy.open(O_RDONLY | O_DIRECTORY), "\(prefix)\(name)/", depth: depth + 1)
      case S_IFLNK:
        var text = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        let count = readlinkat(directory.descriptor.rawValue, name, &text, text.count - 1)
        if count > 0 { symlinkat(text, target.descriptor.rawValue, name) }
      case S_IFREG:
        guard let bytes = content(of: entry, attributes) else { continue }
        let file = try copy.open(
          O_WRONLY | O_CREAT | O_EXCL, mode: attributes.st_mode & 0o755 | 0o600)
        do { try file.descriptor.writeAll(bytes) } catch { throw error as? Errno ?? .ioError }
      default: continue
      }
    }
  }

  private static func entry(_ name: String, in tree: OwnedDescriptor) -> DirectoryEntry? {
    var names = name.split(separator: "/").map(String.init)
    guard let last = names.popLast() else { return nil }
    var directory = tree
    for name in names {
      guard let inner = try? DirectoryEntry(name, in: directory).open(O_RDONLY | O_DIRECTORY)
      else { return nil }
      directory = inner
    }
    return DirectoryEntry(last, in: directory)
  }

  private static func content(of entry: DirectoryEntry, _ attributes: stat) -> [UInt8]? {
    guard attributes.st_size < 64 << 20, let file = try? entry.openRegularFile(O_RDONLY) else {
      return nil
    }
    var bytes = [UInt8](repeating: 0, count: Int(attributes.st_size))
    var length = 0
    while length < bytes.count {
      let count = bytes[length...].withUnsafeMutableBytes {
        Glibc.read(file.descriptor.rawValue, $0.baseAddress, $0.count)
      }
      guard count > 0 else { break }
      length += count
    }
    return Array(bytes.prefix(length))
  }

  private func overlay(
    of changes: [String], in tree: OwnedDescriptor
  ) throws(LabFailure) -> Overlay {
    var overlay = Overlay()
    for name in changes {
      guard let entry = Self.entry(name, in: tree), let attributes = try? entry.attributes else {
        overlay.set(name, nil)
        continue
      }
      guard attributes.st_mode & S_IFMT == S_IFREG,
        let bytes = Self.content(of: entry, attributes)
      else { continue }
      // The time of a file changes without its content, e.g. by git checkout.
      if LabFiles.read(name, in: source) != bytes { overlay.set(name, bytes) }
    }
    return overlay
  }

  private func checkSource() throws(LabFailure) {
    let makefile = LabFiles.read("Makefile", in: source).map { String(decoding: $0, as: UTF8.self) }
    let version = makefile.flatMap { SourceReader.kernelVersion(inMakefile: $0) }
    let numbers = (version ?? "").split(separator: ".").compactMap { UInt($0) }
    guard numbers.count == 2, (numbers[0], numbers[1]) >= (5, 10),
      LabFiles.exists(source.appending("arch/arm64/kvm/mmio.c"))
    else {
      throw LabFailure(
        "\(kernel.given) is no tree of Linux 5.10 or later\(version.map { " (it has version \($0))" } ?? ""): give --linux the directory that has the kernel's Makefile"
      )
    }
  }

  // MARK: - Patches and the hook

  private func apply(_ inputs: Inputs, to overlay: inout Overlay) throws(LabFailure) {
    for (given, bytes) in inputs.patches { try apply(bytes, given, to: &overlay) }
    if let hook = inputs.hook {
      let call = try support.text("hook-call.h")
      do throws(LabFailure) {
        try hook.insert(into: &overlay, of: source, call: call)
      } catch {
        throw LabFailure(error.description, after: error.lines, isOfCode: true)
      }
    }
  }

  /// Applies a diff in a directory that has only the files that the diff changes.
  private func apply(
    _ bytes: [UInt8], _ given: String, to overlay: inout Overlay
  ) throws(LabFailure) {
    let patch: PatchFile
    do throws(CodeFailure) {
      patch = try PatchFile(parsing: bytes, name: given)
    } catch {
      throw LabFailure(error.description, isOfCode: true)
    }
    let stage = root.appending("stage")
    LabFiles.remove(stage)
    mkdir(stage.string, 0o700)
    defer { LabFiles.remove(stage) }
    let tree = stage.appending("tree")
    mkdir(tree.string, 0o700)
    let names = Set(patch.files.flatMap { [$0.old, $0.new] }.compactMap(\.self))
    for name in names {
      if let content = overlay.content(of: name, in: source) {
        try LabFiles.replace(name, in: tree, with: content)
      }
    }
    try LabFiles.replace(stage.appending("diff"), with: bytes)
    let result = try LabTool(
      path: Toolchain.find("patch") ?? "/usr/bin/patch",
      arguments: [
        "-u", "-p1", "--batch", "--forward", "--no-backup-if-mismatch", "-r", "-", "-i",
        "\(stage)/diff",
      ], directory: tree.string, readable: [stage.string], writable: [tree.string], seconds: 60,
      mostBytes: 256 << 20
    ).run(for: worker)
    guard result.succeeded else {
      let lines = CompilerOutput(names: []).lines(of: result.lines)
      throw LabFailure(
        "\(given) does not apply to \(kernel.title): the lines above are those of patch -p1: make the diff from this kernel's tree, or name its tree by --linux",
        after: lines, isOfCode: true)
    }
    for name in names {
      let content = LabFiles.read(name, in: tree)
      if content != nil || overlay.content(of: name, in: source) != nil {
        overlay.set(name, content)
      }
    }
  }

  // MARK: - Kernels

  private static let timestamp = "Thu Jan  1 00:00:00 UTC 2026"

  /// Runs make in a tree.
  private func make(
    _ tree: FilePath, _ arguments: [String], writable: [String], readable: [String],
    seconds: UInt64, mostBytes: Int = 8 << 30, step: (String) -> Void = { _ in }
  ) throws(LabFailure) -> LabTool.Result {
    let processors = max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN)))
    return try LabTool(
      path: Toolchain.find("make") ?? "/usr/bin/make",
      arguments: [
        "--no-print-directory", "-C", tree.string, "-j\(processors)",
        "ARCH=arm64", "CROSS_COMPILE=aarch64-linux-gnu-",
      ] + arguments,
      directory: tree.string, readable: readable, writable: writable,
      environment: [
        "KBUILD_BUILD_USER=virt-walker", "KBUILD_BUILD_HOST=lab", "KBUILD_BUILD_VERSION=1",
        "KBUILD_BUILD_TIMESTAMP=\(Self.timestamp)",
      ], seconds: seconds, mostBytes: mostBytes
    ).run(for: worker, step: step)
  }

  /// Makes the clean kernel of a configuration.
  private func makeBase(_ fragment: [UInt8]) throws(LabFailure) -> FilePath {
    let config =
      try support.file("kernel.config") + Array("\n\(olderOptions)".utf8) + fragment
    var hash = InputHash()
    hash.add(config)
    let parent = root.appending("config-\(hash.name.prefix(12))")
    let base = parent.appending("base")
    if LabFiles.exists(base.appending("complete")) { return base }
    removeOld(in: root, "config-", but: parent.lastComponent!.string, keep: Self.mostBases - 1)
    LabFiles.makeDirectories(parent)

    let tree = base.appending("tree")
    let build = tree.appending("build")
    // make goes on with the objects of a build that was ended. A file that was being written has no command yet, and is made anew.
    if !LabFiles.exists(build.appending("configured")) {
      LabFiles.remove(base)
      mkdir(base.string, 0o700)
      worker.tell("configuring \(kernel.title)")
      try linkSource(to: tree)
      mkdir(build.string, 0o700)
      do throws(LabFailure) {
        try configure(tree, config, fragment)
      } catch {
        LabFiles.remove(parent)
        throw error
      }
    }
    try makeImage(
      tree, counted: base.appending("steps"), overlay: Overlay(), isOfCode: false)
    try keepSize(of: tree, in: base, links: false)
    try LabFiles.writeWhole(base.appending("complete"), [])
    return base
  }

  /// Options without which KVM cannot be chosen in older versions, such as 5.10. Later versions build faster without them.
  private var olderOptions: String {
    let text = LabFiles.read("arch/arm64/kvm/Kconfig", in: source) ?? []
    return String(decoding: text, as: UTF8.self).contains("depends on NET ") ? "CONFIG_NET=y\n" : ""
  }

  private func linkSource(to tree: FilePath) throws(LabFailure) {
    try copyFiles(["-al", source.string, tree.string])
  }

  private func copyFiles(_ arguments: [String]) throws(LabFailure) {
    try LabTool(
      path: "/bin/cp", arguments: arguments, directory: root.string, isTrusted: true
    ).run(for: worker, orFailWith: "cannot copy to \(root): make room there: df shows the space")
  }

  private func configure(
    _ tree: FilePath, _ config: [UInt8], _ fragment: [UInt8]
  ) throws(LabFailure) {
    let build = tree.appending("build")
    let file = build.appending("virt-walker.config")
    try LabFiles.replace(file, with: config)
    let result = try make(
      tree, ["O=\(build)", "KCONFIG_ALLCONFIG=\(file)", "allnoconfig"], writable: [build.string],
      readable: [tree.string], seconds: 600)
    guard result.succeeded else {
      throw LabFailure(
        "\(kernel.title) cannot be configured: \(result.stopped ?? "the lines above are those of make")",
        after: output(tree, Overlay()).lines(of: result.lines))
    }
    let built = Set(
      (LabFiles.text(build.appending(".config")) ?? "").split(separator: "\n").map(String.init))
    func check(_ text: String, _ advice: String) throws(LabFailure) {
      for line in text.split(separator: "\n").map(String.init) {
        let isThere =
          if line.hasPrefix("CONFIG_") {
            built.contains(line)
          } else if line.hasPrefix("# CONFIG_"), line.hasSuffix(" is not set") {
            !built.contains { $0.hasPrefix("\(line.dropFirst(2).prefix { $0 != " " })=") }
          } else {
            true
          }
        guard isThere else {
          throw LabFailure("\(kernel.title) does not take '\(line)': \(advice)")
        }
      }
    }
    try check(try support.text("kernel-required.config"), "a lab needs this option of the kernel")
    try check(
      String(decoding: fragment, as: UTF8.self),
      "an option on which it depends is missing in \(sources.config ?? "the fragment"), or this version does not have it"
    )
    try LabFiles.writeWhole(build.appending("configured"), [])
  }

  /// Makes the kernel of a tree, and tells how far it is.
  private func makeImage(
    _ tree: FilePath, counted: FilePath?, overlay: Overlay, isOfCode: Bool
  ) throws(LabFailure) {
    let build = tree.appending("build")
    var progress = BuildProgress(
      title: kernel.title, expected: counted == nil ? nil : expectedSteps(),
      done: counted == nil ? 0 : Self.commands(in: build))
    let result = try make(
      tree, ["O=\(build)", "Image", "modules_prepare"], writable: [build.string],
      readable: [tree.string], seconds: 4 * 3600
    ) { line in
      if let text = progress.step(line) { worker.tell(text) }
    }
    let output = output(tree, overlay)
    guard result.succeeded else {
      throw LabFailure(
        result.stopped.map { "\(kernel.title) was not built: \($0)" }
          ?? "\(kernel.title) does not compile: the lines above say where",
        after: output.lines(of: result.lines), isOfCode: isOfCode)
    }
    let shown = overlay.shownNames.values
    for line in output.lines(of: result.lines)
    where shown.contains(where: { line.contains("\($0):") }) {
      worker.tell(line)
    }
    // A stranger's rules have run in the directory: from here on, no link in it is followed.
    _ = try content("\(Self.image)", in: build)
    try LabFiles.replace(
      "Module.symvers", in: build, with: content("vmlinux.symvers", in: build))
    if let counted {
      try LabFiles.writeWhole(counted, Array("\(progress.count)".utf8))
      // Later versions and configurations expect about as many.
      try LabFiles.writeWhole(root.appending("steps"), Array("\(progress.count)".utf8))
    }
  }

  /// The number of steps of Linux 6.1 with kernel.config.
  private static let usualSteps = 1160

  /// The number of steps that a build which was ended has made: each leaves a file `.NAME.cmd`.
  private static func commands(in build: FilePath) -> Int {
    func count(_ directory: OwnedDescriptor) -> Int {
      LabFiles.names(in: directory).reduce(0) { sum, name in
        if name.hasSuffix(".cmd") { return sum + 1 }
        guard !name.contains("."),
          let inner = try? DirectoryEntry(name, in: directory).open(O_RDONLY | O_DIRECTORY)
        else { return sum }
        return sum + count(inner)
      }
    }
    return (try? DirectoryEntry(build).open(O_RDONLY | O_DIRECTORY)).map(count) ?? 0
  }

  private func expectedSteps() -> Int {
    let known = ([root] + LabFiles.names(in: cache).map { cache.appending($0) })
      .compactMap { LabFiles.text($0.appending("steps")).flatMap { Int($0) } }.first { $0 > 200 }
    return known ?? Self.usualSteps
  }

  private func output(_ tree: FilePath, _ overlay: Overlay) -> CompilerOutput {
    var names = overlay.shownNames.sorted { $0.key.count > $1.key.count }.flatMap {
      [("../\($0.key)", $0.value), ("\(tree)/\($0.key)", $0.value)]
    }
    names.append(("\(tree)/", ""))
    names.append(("../", ""))
    return CompilerOutput(names: names.map { (built: $0.0, shown: $0.1) })
  }

  private func keepSize(
    of files: FilePath, in directory: FilePath, links: Bool
  ) throws(LabFailure) {
    let size = DiskUse.bytes(of: files.string, links: links)
    try LabFiles.writeWhole(directory.appending("size"), Array("\(size)".utf8))
  }

  /// Makes a kernel with changed files.
  ///
  /// - Parameter isOfCode: Whether the user has changed a file.
  private func makeVariant(
    _ overlay: Overlay, of base: FilePath, isOfCode: Bool
  ) throws(LabFailure) -> FilePath {
    var hash = InputHash()
    overlay.add(to: &hash)
    let parent = base.removingLastComponent()
    let variant = parent.appending("change-\(hash.name)")
    if LabFiles.exists(variant.appending("complete")) {
      utimes(variant.string, nil)
      return variant
    }
    removeOld(in: parent, "change-", but: "", keep: Self.mostVariants - 1)
    LabFiles.remove(variant)
    mkdir(variant.string, 0o700)
    let tree = variant.appending("tree")
    try linkSource(to: tree)
    for (name, bytes) in overlay.files {
      let entry = LabFiles.entry(name, in: tree)
      if let bytes {
        let mode = (try? entry?.attributes.st_mode).map { $0 & 0o777 } ?? 0o644
        try LabFiles.replace(name, in: tree, with: bytes, mode: mode)
      } else {
        entry?.remove()
      }
    }
    try copyFiles(["-a", "\(base)/tree/build", "\(tree)/build"])
    do throws(LabFailure) {
      try makeImage(tree, counted: nil, overlay: overlay, isOfCode: isOfCode)
    } catch {
      LabFiles.remove(variant)
      throw error
    }
    try keepSize(of: tree, in: variant, links: false)
    try LabFiles.writeWhole(variant.appending("complete"), [])
    return variant
  }

  /// Removes the oldest directories with a prefix, and all that are not complete.
  private func removeOld(in parent: FilePath, _ prefix: String, but kept: String, keep: Int) {
    var found: [(time: Int, path: FilePath)] = []
    for name in LabFiles.names(in: parent) where name.hasPrefix(prefix) && name != kept {
      let path = parent.appending(name)
      var attributes = stat()
      guard lstat(path.string, &attributes) == 0 else { continue }
      found.append((attributes.st_mtim.tv_sec, path))
    }
    for (_, path) in found.sorted(by: { $0.time > $1.time }).dropFirst(keep) {
      removeUnclaimed(path)
    }
  }

  private func removeUnclaimed(_ path: FilePath) {
    // A configuration has directories that can be claimed one by one.
    if path.lastComponent?.string.hasPrefix("config-") == true {
      for name in LabFiles.names(in: path) {
        removeUnclaimed(path.appending(name))
      }
      rmdir(path.string)
      return
    }
    // The host's and the guest's file systems in it can be claimed, too.
    for name in LabFiles.names(in: path) where name.hasPrefix("host-") || name.hasPrefix("guest-") {
      guard LabClaim.removeUnclaimed(path.appending(name)) else { return }
    }
    _ = LabClaim.removeUnclaimed(path)
  }

  // MARK: - Programs and file systems

  private static let compiler = "aarch64-linux-gnu-gcc"

  /// Makes the host's file system: the monitor, the recorder, the observer and the guest's kernel.
  private func makeHost(_ variant: FilePath) throws(LabFailure) -> FilePath {
    let host = variant.appending("host-\(support.programsHash)")
    if LabFiles.exists(host.appending("complete")) { return host }
    removeOld(in: variant, "host-", but: "", keep: 0)
    LabFiles.remove(host)
    mkdir(host.string, 0o700)
    try compile("monitor", in: host)
    try compile("recorder", in: host)
    try compile("agent", in: host)
    let observer = host.appending("observer")
    for name in support.files.keys
    where name.hasPrefix("observer") || name.hasSuffix(".h") || name == "Kbuild" {
      try LabFiles.replace(observer.appending(name), with: try support.file(name))
    }
    let result = try makeModules(observer, variant)
    guard result.succeeded else {
      throw LabFailure(
        "the observer does not compile for \(kernel.title): this is a defect of virt-walker, or a change of KVM's structures",
        after: CompilerOutput(names: [("\(observer)/", "")]).lines(of: result.lines))
    }
    var archive = Self.emptyArchive()
    archive.addFile("init", try content("monitor", in: host), mode: 0o755)
    archive.addFile("recorder", try content("recorder", in: host), mode: 0o755)
    archive.addFile("observer.ko", try content("observer.ko", in: observer))
    archive.addDirectory("guest")
    archive.addFile("guest/Image", try content(Self.image, in: variant.appending("tree/build")))
    archive.finish()
    try LabFiles.replace(host.appending("initramfs"), with: archive.bytes)
    try LabFiles.writeWhole(host.appending("complete"), [])
    return host
  }

  private static func emptyArchive() -> CPIOArchive {
    var archive = CPIOArchive()
    for name in ["dev", "proc", "sys", "tmp"] { archive.addDirectory(name) }
    archive.addCharacterDevice("dev/console", major: 5, minor: 1, mode: 0o600)
    archive.addCharacterDevice("dev/null", major: 1, minor: 3, mode: 0o666)
    return archive
  }

  /// A file that a build has made.
  private func content(_ name: String, in root: FilePath) throws(LabFailure) -> [UInt8] {
    guard let bytes = LabFiles.read(name, in: root, most: 256 << 20) else {
      throw LabFailure(
        "the build has made no file \(root.appending(name)): look at the changes of the kernel's Makefile, or run virt-walkerd lab clean, and try again"
      )
    }
    return bytes
  }

  /// Compiles a program of this project for the emulated machine.
  private func compile(_ program: String, in directory: FilePath) throws(LabFailure) {
    let sources = directory.appending("programs")
    for (name, bytes) in support.files where name.hasSuffix(".c") || name.hasSuffix(".h") {
      try LabFiles.replace(sources.appending(name), with: bytes)
    }
    _ = try support.file("\(program).c")
    let result = try LabTool(
      path: Toolchain.find(Self.compiler) ?? "/usr/bin/\(Self.compiler)",
      arguments: [
        "-std=gnu11", "-O2", "-static", "-pthread", "-s", "-o", "\(directory)/\(program)",
        "\(program).c",
      ], directory: sources.string, writable: [directory.string], seconds: 120
    ).run(for: worker)
    guard result.succeeded else {
      throw LabFailure(
        "\(support.directory)/\(program).c does not compile: install libc6-dev-arm64-cross, or take a complete checkout",
        after: CompilerOutput(names: []).lines(of: result.lines))
    }
  }

  /// Builds the modules of a directory for a kernel. Kbuild and the user's rules can change that directory only.
  private func makeModules(
    _ directory: FilePath, _ variant: FilePath
  ) throws(LabFailure) -> LabTool.Result {
    let tree = variant.appending("tree")
    return try make(
      tree, ["O=\(tree)/build", "M=\(directory)", "modules"], writable: [directory.string],
      readable: [tree.string], seconds: 300, mostBytes: 1 << 30)
  }

  /// Makes the guest's file system: the agent and the user's modules.
  private func makeGuest(
    _ variant: FilePath, _ module: ModuleSources
  ) throws(LabFailure) -> FilePath {
    var hash = InputHash()
    hash.add(module.hash)
    hash.add(support.programsHash)
    hash.add(sources.moduleParameters ?? "")
    let guest = variant.appending("guest-\(hash.name)")
    if LabFiles.exists(guest.appending("complete")) {
      utimes(guest.string, nil)
      return guest
    }
    removeOld(in: variant, "guest-", but: "", keep: Self.mostGuests - 1)
    LabFiles.remove(guest)
    mkdir(guest.string, 0o700)
    let directory = guest.appending("module")
    for file in module.files {
      try LabFiles.replace(directory.appending(file.name), with: file.bytes)
    }
    worker.tell("building the module \(sources.module ?? "virt_walker.c")")
    let result = try makeModules(directory, variant)
    let output = CompilerOutput(
      names: [("\(directory)/", module.shownDirectory), ("\(variant)/tree/", ""), ("../", "")])
    guard result.succeeded else {
      let lines = output.lines(of: result.lines)
      LabFiles.remove(guest)
      throw LabFailure(
        result.stopped.map { "the module was not built: \($0)" }
          ?? "the module does not compile: the lines above say where", after: lines,
        isOfCode: true)
    }
    for line in output.lines(of: result.lines) where line.contains(": warning: ") {
      worker.tell(line)
    }
    let built = Self.modules(in: directory)
    guard !built.isEmpty else {
      throw LabFailure(
        "\(sources.module ?? "") makes no module: a line obj-m := NAME.o in its Kbuild names the module",
        after: output.lines(of: result.lines), isOfCode: true)
    }
    var archive = Self.emptyArchive()
    archive.addFile(
      "init", try content("host-\(support.programsHash)/agent", in: variant), mode: 0o755)
    archive.addDirectory("modules")
    for path in built {
      let name = FilePath(path).lastComponent!.stem
      archive.addFile("modules/\(name).ko", try content(path, in: directory))
      if let parameters = sources.moduleParameters {
        archive.addFile("modules/\(name).parameters", Array("\(parameters)\n".utf8))
      }
    }
    archive.finish()
    try LabFiles.replace(guest.appending("initramfs"), with: archive.bytes)
    try LabFiles.writeWhole(guest.appending("complete"), [])
    return guest
  }

  /// The paths of the modules beneath a directory.
  private static func modules(in root: FilePath) -> [String] {
    func find(_ directory: OwnedDescriptor, _ prefix: String, _ depth: Int) -> [String] {
      LabFiles.names(in: directory).flatMap { name -> [String] in
        if name.hasSuffix(".ko") { return [prefix + name] }
        guard depth < 4,
          let inner = try? DirectoryEntry(name, in: directory).open(O_RDONLY | O_DIRECTORY)
        else { return [] }
        return find(inner, "\(prefix)\(name)/", depth + 1)
      }
    }
    return (try? DirectoryEntry(root).open(O_RDONLY | O_DIRECTORY)).map { find($0, "", 0) } ?? []
  }
}

/// How far a build of a kernel is, from the lines of make.
struct BuildProgress {
  let title: String
  /// The number of steps of an earlier build; nil for a build that makes few files.
  let expected: Int?
  private(set) var count: Int
  private let done: Int
  private let start = ContinuousClock.now
  private var told = ContinuousClock.now

  /// - Parameter done: The number of steps that an earlier build has made already.
  init(title: String, expected: Int?, done: Int = 0) {
    self.title = title
    self.expected = expected
    self.done = done
    count = done
  }

  /// Counts a step. Returns a text from time to time.
  mutating func step(_ line: String, now: ContinuousClock.Instant = .now) -> String? {
    count += 1
    guard now - told >= .seconds(5) else { return nil }
    told = now
    return text(after: now - start)
  }

  func text(after duration: Duration) -> String {
    guard let expected, count < expected else { return "building \(title): \(count) files" }
    let seconds = Double(duration.components.seconds)
    let left = seconds / Double(max(count - done, 1)) * Double(expected - count)
    let time = left < 90 ? "\(Int(left)) s" : "\(Int((left / 60).rounded())) min"
    return "building \(title): \(count) of \(expected) files, about \(time) left"
  }
}
