defmodule Causeway.Postgres.TLSOptions do
  @moduledoc false
  # The option `:ssl`: those of Erlang's `:ssl` that libpq has an equal for.
  #
  #     true            TLS only; certificate and host name are verified, by the system's authorities
  #     a list          the same, but by `cacertfile` or what else it says
  #     verify_none     TLS only, to whoever answers
  #
  # How deep a chain may be and how names with wildcards are compared is libpq's business; the name is the host's.

  @taken [:verify, :cacertfile, :cacerts, :certfile, :keyfile, :password, :versions] ++
           [:server_name_indication, :depth, :customize_hostname_check]
  @versions [tlsv1: "TLSv1", "tlsv1.1": "TLSv1.1", "tlsv1.2": "TLSv1.2", "tlsv1.3": "TLSv1.3"]

  # Where systems keep their authorities, for a libpq before 16, which has no word for it.
  @bundles ~w(/etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem
    /etc/ssl/ca-bundle.pem /opt/homebrew/etc/openssl@3/cert.pem /usr/local/etc/openssl@3/cert.pem)

  @doc "The names that are taken, for documentation."
  def names, do: Enum.map_join(@taken, ", ", &"`:#{&1}`")

  @doc "The value of `:ssl`, if it can be."
  def check!(value) when is_boolean(value), do: value

  def check!(list) do
    Keyword.keyword?(list) || bad!(:ssl, "expected true, false, or a list of options")

    for {name, value} <- list do
      name in @taken || bad!(name, "libpq has nothing like it; there are #{names()}")
      valid?(name, value) || bad!(name, expected(name))
    end

    list
  end

  @doc "What libpq is asked."
  def conninfo(false), do: [{"sslmode", "disable"}]
  def conninfo(true), do: conninfo([])

  def conninfo(list) do
    mode(list) ++ client(list) ++ versions(list[:versions])
  end

  # Given authorities, libpq verifies in every mode.
  defp mode(list) do
    cond do
      list[:verify] == :verify_none ->
        [{"sslmode", "require"}]

      list[:server_name_indication] == :disable ->
        [{"sslmode", "verify-ca"}, {"sslsni", "0"}] ++ authorities(list)

      true ->
        [{"sslmode", "verify-full"}] ++ authorities(list)
    end
  end

  defp authorities(list), do: [{"sslrootcert", path(list[:cacertfile]) || system()}]

  defp system do
    Enum.find([System.get_env("SSL_CERT_FILE") | @bundles], "system", &(&1 && File.exists?(&1)))
  end

  defp client(list) do
    for {name, pq} <- [certfile: "sslcert", keyfile: "sslkey", password: "sslpassword"],
        value = path(list[name]),
        do: {pq, value}
  end

  defp versions(nil), do: []

  defp versions(chosen) do
    in_order = for {name, pq} <- @versions, name in chosen, do: pq

    [
      {"ssl_min_protocol_version", hd(in_order)},
      {"ssl_max_protocol_version", List.last(in_order)}
    ]
  end

  defp path(nil), do: nil
  defp path(path), do: IO.chardata_to_string(path)

  defp valid?(:verify, verify), do: verify in [:verify_peer, :verify_none]

  # The certificates themselves cannot be handed over, but where the system's are is known. Whoever gives them has
  # the application that reads them; others do not need it.
  defp valid?(:cacerts, given), do: is_list(given) and given == system_cacerts()
  defp valid?(:server_name_indication, name), do: name == :disable or path?(name)
  defp valid?(:depth, depth), do: is_integer(depth) and depth >= 0
  defp valid?(:customize_hostname_check, list), do: Keyword.keyword?(list)

  defp valid?(:versions, list),
    do: is_list(list) and list != [] and Enum.all?(list, &Keyword.has_key?(@versions, &1))

  defp valid?(_, path), do: path?(path)

  # Where there are none it fails, in a way that differs between releases of OTP.
  defp system_cacerts do
    apply(:public_key, :cacerts_get, [])
  rescue
    _ -> nil
  end

  defp path?(path) do
    (is_binary(path) or (is_list(path) and path != [] and List.ascii_printable?(path))) and
      not String.contains?(to_string(path), <<0>>)
  end

  defp expected(:verify), do: "expected :verify_peer or :verify_none"

  defp expected(:cacerts) do
    "libpq reads certificates from files: give :cacertfile, or no authorities for the system's"
  end

  defp expected(:server_name_indication), do: "expected a name or :disable"
  defp expected(:depth), do: "expected a number"
  defp expected(:customize_hostname_check), do: "expected a keyword list"

  defp expected(:versions) do
    "expected a list of #{@versions |> Keyword.keys() |> Enum.map_join(", ", &inspect/1)}"
  end

  defp expected(_), do: "expected a string"

  defp bad!(name, why), do: raise(ArgumentError, "option :ssl, #{inspect(name)}: #{why}")
end
