import ArgumentParser
import SystemPackage
import UserCode

/// The options for a hook of the user's own.
struct HookOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Your own hook: a C file that is a changed arch/arm64/kvm/mmio.c, or that has io_mem_abort, kvm_hvc_call_handler or the function of --hook-function alone. The headers beside it are taken, too. It is compiled by gcc (or clang), and runs in a process of its own without rights. (default: the built-in hook)",
      valueName: "file"),
    transform: CodePath.parse)
  var hook: String?

  @Option(
    help: ArgumentHelp(
      "The function of the hook that is called for each access that no device answers. (default: io_mem_abort)",
      valueName: "name"),
    transform: HookOptions.parseFunction)
  var hookFunction: String?

  @Option(
    name: .customLong("patch"), parsing: .singleValue,
    help: ArgumentHelp(
      "Your own hook: the output of git diff in the kernel's tree of --linux. It may change mmio.c, hypercalls.c and hyp/pgtable.c in arch/arm64/kvm, and headers. With --engine kernel, it may change each file of the kernel, and the option can be given several times. (default: no diff)",
      valueName: "file"),
    transform: CodePath.parse)
  var patches: [String] = []

  @Option(
    help: ArgumentHelp(
      "The kernel whose functions the code calls: a version from 5.10 to 7.3, such as 6.12, or the directory of a kernel's tree. --patch needs the tree of the diff. (default: 6.1)",
      valueName: "version or dir"),
    transform: CodePath.parse)
  var linux: String?

  @Flag(
    help:
      "Compile the code of the module and the hook with AddressSanitizer and UndefinedBehaviorSanitizer, which find more mistakes. The code is slower."
  )
  var sanitize = false

  /// Whether there is a hook of the user's own.
  var isGiven: Bool { hook != nil || patch != nil }

  /// The one diff of a hook on the model.
  var patch: String? { patches.first }

  func validate() throws {
    if hook != nil && patch != nil {
      throw ValidationError("--hook and --patch both name the hook: give one of them")
    }
    if hookFunction != nil && !isGiven {
      throw ValidationError("--hook-function names a function of a hook: give --hook FILE, too")
    }
  }

  var sources: CodeSources {
    var sources = CodeSources()
    sources.hook = hook
    sources.hookFunction = hookFunction
    sources.patch = patch
    sources.linux = linux
    sources.isSanitized = sanitize
    return sources
  }

  /// Throws if the options are not for code on the model: there is no code, or a diff without its tree.
  func requireCode(_ hasCode: Bool, by options: String) throws {
    guard patches.count < 2 else {
      throw ValidationError("the model takes one --patch: put the diffs into one file")
    }
    if patch != nil && linux == nil {
      throw ValidationError("--patch needs the kernel's tree of the diff: --linux DIRECTORY")
    }
    guard !hasCode else { return }
    if linux != nil { throw ValidationError("--linux needs code to compile: give \(options)") }
    if sanitize { throw ValidationError("--sanitize needs code to compile: give \(options)") }
  }

  static func parseFunction(_ text: String) throws -> String {
    let isName = text.utf8.allSatisfy {
      switch $0 {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"):
        true
      default: false
      }
    }
    let startsWithDigit = text.first.map(\.isNumber) ?? true
    guard isName, !startsWithDigit, text.utf8.count <= 128 else {
      throw ValidationError("'\(text)' is not the name of a C function")
    }
    return text
  }
}

/// The options for a driver of the user's own.
struct ModuleOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Your own driver: a C file, or a directory with the C files of one kernel module. No Makefile is run. It is compiled by gcc (or clang), loaded into the guest, and runs in a process of its own without rights. (default: the built-in driver)",
      valueName: "file or dir"),
    transform: CodePath.parse)
  var module: String?

  @Option(
    help: ArgumentHelp(
      "The parameters of the module, as for insmod: \"name=value name=value\". (default: no parameters)",
      valueName: "list"))
  var moduleParameters: String?

  @Flag(
    help:
      "When a file of the module or the hook changes, compile it, and load it in the place of the old one. The machine is booted anew. With --engine kernel, only the module is loaded."
  )
  var watchSource = false

  func validate() throws {
    if moduleParameters != nil && module == nil {
      throw ValidationError("--module-parameters needs a module: give --module FILE, too")
    }
    if let moduleParameters,
      moduleParameters.utf8.count > 4096 || moduleParameters.utf8.contains(where: { $0 < 0x20 })
    {
      throw ValidationError(
        "--module-parameters has at most 4096 characters, and no control characters")
    }
  }
}

/// A path of code on the command line.
enum CodePath {
  static func parse(_ text: String) throws -> String {
    guard !text.isEmpty, text.utf8.count < 4096,
      !text.utf8.contains(where: { $0 < 0x20 || $0 == 0x7f })
    else { throw ValidationError("'\(text)' is not the path of a file") }
    return text
  }
}
