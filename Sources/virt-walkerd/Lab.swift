import ArgumentParser
import CharacterDeviceServer
import Glibc
import KernelLab
import SystemPackage

/// The options that name the kernel and the code of a lab.
struct LabOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The kernel: a version of Debian's archives, such as 6.1 or 6.12, the directory of a kernel's tree, or an archive of one, from 5.10 on. (default: 6.1)",
      valueName: "version, dir or file"),
    transform: CodePath.parse)
  var linux: String?

  @Option(
    help: ArgumentHelp(
      "A diff of the kernel's tree, such as the output of git diff. It is applied by patch -p1. The option can be given several times. (default: no diff)",
      valueName: "file"),
    transform: CodePath.parse)
  var patch: [String] = []

  @Option(
    help: ArgumentHelp(
      "Your own hook: a C file that is a changed arch/arm64/kvm/mmio.c or a similar file, or that has io_mem_abort, a handler of hypercalls or the function of --hook-function alone. The headers beside it are taken, too. (default: the project's hook, if --linux is a version and there is no --patch)",
      valueName: "file"),
    transform: CodePath.parse)
  var hook: String?

  @Option(
    help: ArgumentHelp(
      "The function of the hook that io_mem_abort() calls first. (default: io_mem_abort)",
      valueName: "name"),
    transform: HookOptions.parseFunction)
  var hookFunction: String?

  @Option(
    help: ArgumentHelp(
      "Your own driver: a C file, or a directory. Of a directory, C files, headers, Kbuild and the lines of Makefile that name objects are taken. (default: the project's module)",
      valueName: "file or dir"),
    transform: CodePath.parse)
  var module: String?

  @Option(
    help: ArgumentHelp(
      "The parameters of the module, as for insmod: \"name=value name=value\". (default: no parameters)",
      valueName: "list"))
  var moduleParameters: String?

  @Option(
    help: ArgumentHelp(
      "More options of the kernel, such as a file with the line CONFIG_PROVE_LOCKING=y. Each new set of options needs a whole build. (default: none)",
      valueName: "file"),
    transform: CodePath.parse)
  var config: String?

  func validate() throws {
    if hookFunction != nil && hook == nil {
      throw ValidationError("--hook-function names a function of a hook: give --hook FILE, too")
    }
    if let moduleParameters,
      moduleParameters.utf8.count > 4096 || moduleParameters.utf8.contains(where: { $0 < 0x20 })
    {
      throw ValidationError(
        "--module-parameters has at most 4096 characters, and no control characters")
    }
  }

  var sources: LabSources {
    var sources = LabSources()
    sources.linux = linux
    sources.patches = patch
    sources.hook = hook
    sources.hookFunction = hookFunction
    sources.module = module
    sources.moduleParameters = moduleParameters
    sources.config = config
    return sources
  }
}

/// The option for the directory of the cache.
struct LabCacheOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "The directory for sources and kernels. (default: /var/cache/virt-walker/lab for root, otherwise ~/.cache/virt-walker/lab)",
      valueName: "dir"),
    transform: CodePath.parse)
  var cache: String?

  /// The builder of the kernels in the cache.
  ///
  /// - Parameters:
  ///   - user: The user as whom a process of root's builds.
  ///   - progress: A function that takes lines for people.
  func builder(
    as user: Sandbox.User? = UserOptions.usual,
    progress: @escaping (String) -> Void = { line in
      _ = try? FileDescriptor.standardError.writeAll("virt-walkerd: \(line)\n".utf8)
    }
  ) -> LabBuilder {
    LabBuilder(
      cache: (cache.map { FilePath($0) } ?? LabBuilder.usualCache).absolute, user: user,
      progress: progress)
  }
}

extension FilePath {
  /// The path from the root directory on, for a process with another working directory.
  var absolute: FilePath {
    var directory = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    guard !isAbsolute, getcwd(&directory, directory.count) != nil else { return self }
    return FilePath(platformString: directory).pushing(self)
  }
}

/// The kernels that the real-kernel engine boots.
struct Lab: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lab",
    abstract: "Build the kernels of the real-kernel engine, and free their disk space.",
    subcommands: [Build.self, Status.self, Clean.self])

  struct Build: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "build",
      abstract: "Build a kernel and the file systems of host and guest, and print their paths.",
      discussion:
        "The first build of a version takes some minutes, a changed hook or diff less than a minute, and a changed module some seconds."
    )

    @OptionGroup var options: LabOptions
    @OptionGroup var cache: LabCacheOptions

    @Option(
      help: ArgumentHelp(
        "Copy the kernel and both file systems into this directory, for serve --images on a machine without compilers. The directory is made if it is missing. (default: no copy)",
        valueName: "dir"),
      transform: CodePath.parse)
    var output: String?

    func run() throws {
      try reportingFailures {
        let images = try cache.builder().build(options.sources)
        if let output { try Lab.copy(images, to: FilePath(output)) }
        print("kernel: \(images.image)")
        print("host: \(images.hostInitramfs)")
        print("guest: \(images.guestInitramfs)")
        print("release: \(images.release)")
        print("disk: \(images.usedBytes >> 20) MiB")
      }
    }
  }

  /// Copies the files that `serve --images` boots.
  private static func copy(_ images: LabImages, to directory: FilePath) throws {
    do throws(Errno) {
      if mkdir(directory.string, 0o755) != 0, errno != EEXIST { throw .current }
      for (file, name) in zip(
        [images.image, images.hostInitramfs, images.guestInitramfs], ImageDirectory.names)
      {
        try ImageDirectory.copy(file, to: directory.appending(name))
      }
    } catch {
      throw Failure(
        error, doing: "copy the images to", at: directory, advice: "choose another --output")
    }
  }

  struct Status: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "status",
      abstract: "List the kernels that are kept, and their disk space.")

    @OptionGroup var cache: LabCacheOptions

    func run() throws {
      try reportingFailures {
        let trees = try cache.builder().status()
        for tree in trees {
          let state =
            tree.hasKernel
            ? "\(tree.changes) kernels with changes"
            : tree.hasSource ? "no kernel yet" : "the source is not complete"
          print("\(tree.name): \(tree.title), \(tree.bytes >> 20) MiB, \(state)")
        }
        if trees.isEmpty { print("no kernels") }
      }
    }
  }

  struct Clean: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "clean",
      abstract: "Remove one kernel with its source and trees, or all of them.")

    @Argument(
      help: ArgumentHelp(
        "A version, or a name that virt-walkerd lab status prints. (default: all)",
        valueName: "version"))
    var version: String?

    @OptionGroup var cache: LabCacheOptions

    func run() throws {
      try reportingFailures {
        let (freed, left) = try cache.builder().clean(version)
        print("\(freed >> 20) MiB freed")
        guard left.isEmpty else {
          throw Failure(
            "\(left.joined(separator: ", ")): a build or a daemon uses it: stop it, and try again",
            status: .unavailable)
        }
      }
    }
  }
}
