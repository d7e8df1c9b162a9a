defmodule Ledger.AuditTest do
  use Ledger.Case, async: true

  test "tells who did what" do
    since = DateTime.utc_now()
    accounts(%{"ADA" => 100, "BOB" => 0})
    {:ok, transfer} = move("ADA", "BOB", "0.10")

    assert [%{actor: "test", action: :transferred, data: data}] = Audit.events(transfer.id)
    assert data == %{"ADA" => "-0.10", "BOB" => "0.10"}
    assert Audit.activity("test", since) == %{opened: 3, transferred: 2}
    assert Audit.activity("nobody", since) == %{}
  end

  test "what did not happen is not told" do
    accounts(%{"ADA" => 1, "BOB" => 0})
    since = DateTime.utc_now()
    {:error, _} = move("ADA", "BOB", 2)
    assert Audit.activity("test", since) == %{}
  end
end
